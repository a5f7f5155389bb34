"""What a model's folder says of itself, as a gallery entry."""

from pathlib import Path

import gguf

from memoryd.models.conversion.architectures import read_architecture
from memoryd.models.conversion.modules import Modules, read_modules
from memoryd.models.conversion.plan import Architecture
from memoryd.models.conversion.qwen3 import QWEN3
from memoryd.models.gallery import GalleryEntry, Pooling

# The names under which sentence-transformers looks in encode_query and encode_document.
_QUERY_PROMPTS = ("query",)
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_RERANKER_TITLE = "# qwen3-reranker"


def describe_folder(folder: Path, name: str) -> GalleryEntry:
    """Return the entry `name` for the model in `folder`; raise ModelFileError if it has none.

    What the folder doesn't say is None: only a folder with the files of sentence-transformers says
    how vectors are pooled.
    """
    modules = read_modules(folder)
    architecture = read_architecture(modules.root)
    shape = architecture.read_shape(modules.root / "config.json")
    is_reranker = architecture.has_score_head or _is_qwen3_reranker(architecture, folder, modules)
    pooling: Pooling | None = "rank" if is_reranker else modules.pooling
    return GalleryEntry(
        name,
        kind="reranker" if is_reranker else "embedding",
        architecture=gguf.MODEL_ARCH_NAMES[architecture.gguf],
        dimensions=shape.dimensions,
        context_tokens=shape.context_tokens,
        trained_tokens=modules.trained_tokens,
        pooling=pooling,
        query_prefix=_prompt(modules, _QUERY_PROMPTS),
        document_prefix=_prompt(modules, _DOCUMENT_PROMPTS),
        facts=f"the files in {folder}",
    )


def _is_qwen3_reranker(architecture: Architecture, folder: Path, modules: Modules) -> bool:
    """Qwen3-Reranker is a model that writes texts, and nothing but its name says what it is for."""
    if architecture is not QWEN3 or modules.pooling is not None:
        return False
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    return _RERANKER_TITLE in text.lower() or "qwen3-reranker" in folder.name.lower()


def _prompt(modules: Modules, names: tuple[str, ...]) -> str:
    return next((modules.prompts[name] for name in names if name in modules.prompts), "")
