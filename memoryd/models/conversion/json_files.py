"""JSON files of a model's folder, checked as they are read."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from memoryd.errors import ModelFileError

Content = TypeVar("Content")

# Numbers of GGUF are 32 bits wide, and llama.cpp's own signed.
Count = Annotated[int, Field(ge=1, lt=1 << 31)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FileContent(BaseModel):
    """Hold the fields of a file that are of use here; others may be there."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class RopeParameters(FileContent):
    """Hold the settings of rotary positions as transformers writes them since its version 5."""

    rope_theta: Factor
    rope_type: Literal["default"] = "default"


def read_json(path: Path, content: type[Content]) -> Content:
    """Return what the file at `path` holds; raise ModelFileError naming it and what is wrong."""
    try:
        return TypeAdapter(content).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} is missing") from error
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        raise ModelFileError(f"{path} can't be used: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    got = (
        "" if problem["type"] in ("missing", "json_invalid") else f", got {problem['input']!r:.80}"
    )
    return f"{place}: {problem['msg']}{got}" if place else f"{problem['msg']}{got}"


def check_heads(path: Path, width: int, heads: int) -> None:
    """Raise ModelFileError unless `width` can be shared among `heads` of attention."""
    if width % heads:
        raise ModelFileError(f"{path}: {heads} heads of attention can't share {width}")
