"""Where in a document's text its pages and headings are."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """Be a stretch of a text, `text[start_char:end_char]` in code points, and say where it is."""

    start_char: int
    end_char: int
    headings: tuple[str, ...] = ()
    """The heading that it stands under and those above that, the outermost first."""
    page: int | None = None
    """Counted from 1."""


def section_at(sections: Sequence[Section], char: int) -> Section | None:
    """Return which of the ordered `sections` the character at `char` is in, if any."""
    index = bisect_right(sections, char, key=lambda section: section.start_char) - 1
    if index < 0 or char >= sections[index].end_char:
        return None
    return sections[index]


class HeadingPath:
    """Follow the headings of a text and tell those that the current place stands under."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, heading: str) -> tuple[str, ...]:
        """Go below a heading of `level` (1 is the highest) and return the path to there."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, heading))
        return self.path

    @property
    def path(self) -> tuple[str, ...]:
        """The headings from the outermost to the nearest."""
        return tuple(heading for _, heading in self._open)
