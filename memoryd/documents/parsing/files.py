"""A file's bytes → what it says."""

from collections.abc import Callable

from memoryd.documents.parsing import detect
from memoryd.documents.parsing.book import parse_epub
from memoryd.documents.parsing.html import parse_html
from memoryd.documents.parsing.mail import parse_eml
from memoryd.documents.parsing.pdf import parse_pdf
from memoryd.documents.parsing.plain import parse_markdown, parse_text
from memoryd.documents.parsing.records import parse_csv, parse_json, parse_json_lines
from memoryd.documents.parsing.sheets import parse_xlsx
from memoryd.documents.parsing.slides import parse_pptx
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.documents.parsing.word import parse_docx
from memoryd.errors import InvalidInputError

_PARSERS: dict[str, Callable[[Source, ParsingLimits], Parsed]] = {
    detect.PDF: parse_pdf,
    detect.DOCX: parse_docx,
    detect.PPTX: parse_pptx,
    detect.XLSX: parse_xlsx,
    detect.EPUB: parse_epub,
    detect.HTML: parse_html,
    detect.EML: parse_eml,
    "text/markdown": parse_markdown,
    "application/json": parse_json,
    "application/x-ndjson": parse_json_lines,
    "text/csv": parse_csv,
    "text/tab-separated-values": parse_csv,
}


def parse_file(data: bytes, name: str, mime_type: str | None, limits: ParsingLimits) -> Parsed:
    """Return what a file says; `name` and `mime_type` are the sender's word for what it is.

    Raises InvalidInputError with a reason that a person understands where it is empty, broken,
    encrypted or of an unknown type, TooLargeError where it is over `limits`, MemoryError where it
    needs more than the process may have.
    """
    source = detect.identify(data, name, mime_type, limits)
    parse = _PARSERS.get(source.mime_type, parse_text)
    try:
        parsed = parse(source, limits)
    except RecursionError as error:
        raise InvalidInputError("the file is refused: it is nested too deep") from error
    if not parsed.text.strip():
        raise InvalidInputError("the file has no text")
    return parsed
