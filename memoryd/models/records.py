"""What was fetched for a model, kept beside its files: their sizes and hashes, and from where."""

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from memoryd.errors import ModelFileError
from memoryd.models.gallery import GalleryEntry, SourceFile
from memoryd.models.layout import record_path

MAX_RECORD_BYTES = 1 << 20
# What memoryd makes lies in the models directory itself; all that stands here may be deleted.
_MADE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.(?:gguf|yaml)")


@dataclass(frozen=True)
class Record:
    """Hold where a model's files came from and what they were.

    `files` are those that were fetched, `made` the names in the models directory of those that
    memoryd wrote, and `commit` that of the hub's repository.
    """

    source: str
    commit: str | None = None
    files: tuple[SourceFile, ...] = ()
    made: tuple[str, ...] = ()


_RECORDS = TypeAdapter(Record)


def read_record(entry: GalleryEntry, models_dir: Path) -> Record | None:
    """Return what was fetched for a model, or None where nothing was.

    Raises ModelFileError where the file that says so can't be read.
    """
    path = record_path(entry, models_dir)
    try:
        with path.open("rb") as file:
            record = _RECORDS.validate_json(file.read(MAX_RECORD_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ModelFileError(
            f"{path} can't be read; remove it, and it is missed by none"
        ) from error
    if not all(_MADE.fullmatch(made) for made in record.made):
        raise ModelFileError(f"{path} names files of other folders: it isn't memoryd's")
    return record


def write_record(record: Record, entry: GalleryEntry, models_dir: Path) -> None:
    """Write what was fetched for a model, at once or not at all."""
    path = record_path(entry, models_dir)
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(_RECORDS.dump_json(record, indent=2))
    new.replace(path)
