"""PDF → text by page."""

from bisect import bisect_right

import pypdfium2

from memoryd.documents.parsing.builder import TextBuilder
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.errors import InvalidInputError

# What PDFium puts for a hyphen at the end of a line, and for the line's end.
_HYPHENATION = str.maketrans(dict.fromkeys("\x02\ufffe"))


def parse_pdf(source: Source, limits: ParsingLimits) -> Parsed:
    """Return the text, its sections by page, and under which bookmark each page is.

    Raises InvalidInputError where a password is needed, or there is no text: only images.
    """
    try:
        with pypdfium2.PdfDocument(source.data) as pdf:
            return _read(pdf, source, limits)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise InvalidInputError("the PDF is encrypted: remove its password") from error
        raise InvalidInputError(f"the PDF is broken or cut off: {error}") from error


def _read(pdf: pypdfium2.PdfDocument, source: Source, limits: ParsingLimits) -> Parsed:
    builder = TextBuilder(limits.text_chars)
    bookmarks = _bookmarks(pdf)
    entered = 0
    for index in range(len(pdf)):
        builder.start_page(index + 1)
        reached = bisect_right(bookmarks, index, key=lambda bookmark: bookmark[0])
        for _, level, title in bookmarks[entered:reached]:
            builder.enter(level, title)
        entered = reached
        builder.add(_page_text(pdf, index))
    if not builder.has_text:
        raise InvalidInputError(
            f"the PDF has {len(pdf)} pages and no text: scanned pages need text recognition (OCR)"
        )
    return builder.build(pdf.get_metadata_value("Title"), source.mime_type)


def _page_text(pdf: pypdfium2.PdfDocument, index: int) -> str:
    page = pdf[index]
    text = page.get_textpage().get_text_bounded()
    page.close()  # with what it holds: a long book's pages don't fit into memory together
    return str(text).translate(_HYPHENATION)


def _bookmarks(pdf: pypdfium2.PdfDocument) -> list[tuple[int, int, str]]:
    """Return page index, level (1 is the highest) and title of each bookmark, by page."""
    found = []
    for bookmark in pdf.get_toc(max_depth=6):
        destination = bookmark.get_dest()
        page = destination.get_index() if destination else None
        title = bookmark.get_title().strip()
        if page is not None and title:
            found.append((page, bookmark.level + 1, title))
    return sorted(found, key=lambda bookmark: bookmark[0])
