"""Text and Markdown files."""

from memoryd.documents.markdown import find_title, outline_markdown
from memoryd.documents.parsing.builder import clean, one_line
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.errors import TooLargeError


def parse_text(source: Source, limits: ParsingLimits) -> Parsed:
    """Return the text as it is."""
    return Parsed(_text(source, limits), "", source.mime_type)


def parse_markdown(source: Source, limits: ParsingLimits) -> Parsed:
    """Return the text as it is, its title, and its sections by heading."""
    text = _text(source, limits)
    return Parsed(text, one_line(find_title(text)), source.mime_type, outline_markdown(text))


def _text(source: Source, limits: ParsingLimits) -> str:
    text = clean(source.text)
    if len(text) > limits.text_chars:
        raise TooLargeError(f"the file has more than {limits.text_chars} characters of text")
    return text
