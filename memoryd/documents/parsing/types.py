"""What parsing gives, and what it may take."""

from dataclasses import dataclass, field

from memoryd.documents.outline import Section


@dataclass(frozen=True)
class ParsingLimits:
    """Say how much a file may ask for."""

    text_chars: int = 5_000_000
    unpacked_bytes: int = 256 << 20
    """What the entries of an archive may take, all together."""
    archive_entries: int = 20_000


@dataclass(frozen=True)
class Parsed:
    """Be what a file says.

    The text is plain for text files and PDF; of other formats it is light Markdown: headings,
    lists, tables and code blocks are marked, and nothing within a line.
    """

    text: str
    title: str
    """Empty where the file names none."""
    mime_type: str
    sections: list[Section] = field(default_factory=list)
    """In order and apart from each other; empty where the format has neither pages nor headings."""
