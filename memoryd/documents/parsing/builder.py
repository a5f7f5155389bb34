"""Put a document's text together and note where its pages and headings are."""

import re

from memoryd.documents.outline import HeadingPath, Section
from memoryd.documents.parsing.types import Parsed
from memoryd.errors import TooLargeError

_SPACES = re.compile(r"\s+")
# Python can't encode lone surrogates, nor Postgres store NUL.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """Replace what can't be stored by U+FFFD, and line ends of other systems by a newline."""
    return _UNSTORABLE.sub(_REPLACEMENT, text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """Return `text` with single spaces in it and none around."""
    return _SPACES.sub(" ", clean(text)).strip()


class TextBuilder:
    """Hold a text that grows block by block; blocks are parted by a blank line."""

    def __init__(self, max_chars: int) -> None:
        """Take how many characters the text may have."""
        self._max_chars = max_chars
        self._parts: list[str] = []
        self._length = 0
        self._path = HeadingPath()
        self._page: int | None = None
        self._sections: list[Section] = []
        self._section_start: int | None = None

    @property
    def has_text(self) -> bool:
        """Whether anything was added."""
        return bool(self._parts)

    def add(self, block: str, gap: str = "\n\n") -> None:
        """Add `block` after `gap`; a blank one is left out. Raises TooLargeError over the limit."""
        block = clean(block).rstrip().lstrip("\n")
        if not block.strip():
            return
        if self._parts:
            self._append(gap)
        if self._section_start is None:
            self._section_start = self._length
        self._append(block)

    def add_heading(self, level: int, heading: str) -> None:
        """Add a heading of `level` (1 to 6) and begin what stands under it."""
        heading = one_line(heading)
        if heading:
            self.enter(level, heading)
            self.add(f"{'#' * level} {heading}")

    def enter(self, level: int, heading: str) -> None:
        """Begin what stands under a heading that isn't written in the text."""
        self._end_section()
        self._path.enter(level, heading)

    def start_page(self, number: int) -> None:
        """Begin the page `number`."""
        self._end_section()
        self._page = number

    def build(self, title: str, mime_type: str) -> Parsed:
        """Return the document."""
        self._end_section()
        return Parsed("".join(self._parts), one_line(title), mime_type, self._sections)

    def _append(self, part: str) -> None:
        self._parts.append(part)
        self._length += len(part)
        if self._length > self._max_chars:
            raise TooLargeError(f"the file has more than {self._max_chars} characters of text")

    def _end_section(self) -> None:
        """Close the section; neighbors touch, so that each character is in one."""
        start, self._section_start = self._section_start, None
        if start is not None and (self._path.path or self._page is not None):
            self._sections.append(Section(start, self._length, self._path.path, self._page))
