"""How the files of the models directory are called, from the stem of a model's entry."""

from pathlib import Path

from memoryd.models.gallery import GalleryEntry
from memoryd.models.weights import WeightType


def gguf_path(entry: GalleryEntry, models_dir: Path) -> Path:
    """Return where a GGUF that was fetched as it is lies."""
    return models_dir / f"{entry.stem}.gguf"


def converted_path(entry: GalleryEntry, models_dir: Path, weight_type: WeightType) -> Path:
    """Return where a GGUF that memoryd has made lies."""
    return models_dir / f"{entry.stem}-{weight_type}.gguf"


def lock_path(entry: GalleryEntry, models_dir: Path) -> Path:
    """Return what is locked while a model's files are made or removed."""
    return models_dir / f".lock-{entry.stem}"


def making_path(entry: GalleryEntry, models_dir: Path) -> Path:
    """Return the folder of what has come of a model so far."""
    return models_dir / f".making-{entry.stem}"


def record_path(entry: GalleryEntry, models_dir: Path) -> Path:
    """Return where it stands what was fetched for a model."""
    return models_dir / f".{entry.stem}.json"
