"""What sentence-transformers' own files say: pooling, dense layers, prompts, the trained length.

The files are described by the code that reads them, sentence_transformers/base/model.py and its
modules; where a file is missing, so is what it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ConfigDict, Field

from memoryd.errors import ModelFileError
from memoryd.models.conversion.json_files import Count, FileContent, read_json
from memoryd.models.conversion.stored_tensors import StoredTensor, read_tensors
from memoryd.models.gallery import Pooling

Content = TypeVar("Content", bound=FileContent)

_POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


@dataclass(frozen=True)
class DenseModule:
    """Hold the matrix that a Dense module multiplies pooled vectors with."""

    path: Path
    weight: StoredTensor


@dataclass(frozen=True)
class Modules:
    """Hold what surrounds a model; None where the folder doesn't say it."""

    root: Path
    """Where the model's own config.json lies."""
    pooling: Pooling | None
    dense: tuple[Path, ...]
    trained_tokens: int | None
    lowercases: bool
    prompts: Mapping[str, str]


class _Module(FileContent):
    type: str
    path: str


class _PoolingConfig(FileContent):
    model_config = ConfigDict(extra="allow")

    pooling_mode: str | list[str] | None = None
    include_prompt: Literal[True] = True


class _DenseConfig(FileContent):
    in_features: Count
    out_features: Count
    bias: Literal[False]
    activation_function: Literal["torch.nn.modules.linear.Identity"]
    use_residual: Literal[False] = False


class _TransformerConfig(FileContent):
    max_seq_length: Count | None = None
    do_lower_case: bool = False


class _PromptConfig(FileContent):
    prompts: dict[str, str | None] = Field(default={})


def read_modules(folder: Path) -> Modules:
    """Return what the files in `folder` say; raise ModelFileError for what can't be followed."""
    paths: dict[str, list[Path]] = {"Transformer": [], "Pooling": [], "Dense": [], "Normalize": []}
    for module in _read_module_list(folder):
        kind = module.type.rsplit(".", 1)[-1]
        if kind not in paths:
            raise ModelFileError(f"{folder / 'modules.json'}: {kind} modules aren't supported")
        paths[kind].append(_inner_path(folder, module.path))
    root = paths["Transformer"][0] if paths["Transformer"] else folder
    transformer = _read_optional(root / "sentence_bert_config.json", _TransformerConfig)
    prompts = _read_optional(folder / "config_sentence_transformers.json", _PromptConfig).prompts
    return Modules(
        root,
        _read_pooling(paths["Pooling"]),
        tuple(paths["Dense"]),
        transformer.max_seq_length,
        transformer.do_lower_case,
        {name: prompt for name, prompt in prompts.items() if prompt},
    )


def _read_module_list(folder: Path) -> list[_Module]:
    path = folder / "modules.json"
    return read_json(path, list[_Module]) if path.is_file() else []


def _inner_path(folder: Path, path: str) -> Path:
    inner = folder / path
    if not inner.resolve().is_relative_to(folder.resolve()):
        raise ModelFileError(f"{folder / 'modules.json'} leads out of the folder: {path}")
    return inner


def _read_optional(path: Path, content: type[Content]) -> Content:
    return read_json(path, content) if path.is_file() else content()


def _read_pooling(paths: list[Path]) -> Pooling | None:
    if not paths:
        return None
    file = paths[0] / "config.json"
    config = read_json(file, _PoolingConfig)
    modes = _pooling_modes(config)
    if len(paths) > 1 or len(modes) > 1 or modes[0] not in _POOLINGS:
        known = ", ".join(_POOLINGS)
        raise ModelFileError(f"{file}: pools by {' and '.join(modes)}; supported is one of {known}")
    return _POOLINGS[modes[0]]


def _pooling_modes(config: _PoolingConfig) -> list[str]:
    """Return the modes, which older files give as a flag each; without any, it is the mean."""
    if config.pooling_mode is not None:
        return (
            config.pooling_mode if isinstance(config.pooling_mode, list) else [config.pooling_mode]
        )
    flags = {
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name, is_on in (config.model_extra or {}).items()
        if name.startswith("pooling_mode_") and is_on is True
    }
    return sorted(flags) or ["mean"]


def read_dense(paths: tuple[Path, ...]) -> tuple[DenseModule, ...]:
    """Return the Dense modules at `paths`; raise ModelFileError unless they are plain matrices."""
    modules = []
    for path in paths:
        config = read_json(path / "config.json", _DenseConfig)
        weight = read_tensors(path).get("linear.weight")
        if weight is None or weight.shape != (config.out_features, config.in_features):
            raise ModelFileError(f"{path} lacks linear.weight as its config.json describes it")
        modules.append(DenseModule(path, weight))
    return tuple(modules)
