"""In which type a model's weights are kept."""

import re
from pathlib import Path
from typing import Literal, get_args

WeightType = Literal["bf16", "f32"]
WEIGHT_TYPES: tuple[WeightType, ...] = get_args(WeightType)


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the CPU's features by Linux's names for them; none where /proc/cpuinfo is missing."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(flags[1].split()) if flags else frozenset()


def fastest_weight_type(features: frozenset[str]) -> WeightType:
    """Return the type that llama.cpp multiplies fastest, with vectors as good as those of F32.

    AVX512_BF16 is the only feature that ggml's BF16 kernels use (ggml-cpu/llamafile/sgemm.cpp; its
    AMX kernels are for integers); elsewhere BF16 is slower than F32.
    """
    return "bf16" if "avx512_bf16" in features else "f32"
