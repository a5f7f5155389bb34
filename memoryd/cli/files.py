"""Which files are ingested."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from memoryd.errors import InvalidInputError

# What is looked for in folders; a file that is named, or matches --include, is sent in any case.
TYPES = (
    *(".txt", ".text", ".md", ".markdown", ".html", ".htm", ".xhtml", ".json", ".jsonl"),
    *(".ndjson", ".csv", ".tsv", ".pdf", ".docx", ".pptx", ".xlsx", ".epub", ".eml"),
)


@dataclass(frozen=True)
class Selection:
    """Pick files by patterns as shells have them.

    One without a slash is compared with names, of folders too; another with the path below the
    folder that is searched.
    """

    include: tuple[str, ...] = ()
    """Empty: all of the types that are read."""
    exclude: tuple[str, ...] = ()

    def find(self, paths: Iterable[Path]) -> Iterator[Path]:
        """Yield the files of `paths`, and those picked in its folders, each folder's in order.

        Raises InvalidInputError for a path that is not there.
        """
        for path in paths:
            if path.is_dir():
                yield from self._find_below(path, path)
            elif path.is_file():
                yield path
            else:
                raise InvalidInputError(f"there is no file or folder {path}")

    def _find_below(self, root: Path, folder: Path) -> Iterator[Path]:
        for path in sorted(_entries(folder)):
            relative = path.relative_to(root)
            if path.name.startswith(".") or _matches(relative, self.exclude):
                continue
            if path.is_dir():
                if not path.is_symlink():  # one that leads up would never end
                    yield from self._find_below(root, path)
            elif self._is_included(relative) and path.is_file():
                yield path

    def _is_included(self, relative: Path) -> bool:
        if self.include:
            return _matches(relative, self.include)
        return relative.suffix.lower() in TYPES


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InvalidInputError(f"{folder} can't be read: {error.strerror}") from error


def _matches(relative: Path, patterns: Iterable[str]) -> bool:
    return any(
        fnmatchcase(relative.as_posix() if "/" in pattern else relative.name, pattern)
        for pattern in patterns
    )
