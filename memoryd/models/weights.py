"""In which type a model's weights are kept."""

from typing import Literal, get_args

WeightType = Literal["bf16", "f32"]
WEIGHT_TYPES: tuple[WeightType, ...] = get_args(WeightType)
