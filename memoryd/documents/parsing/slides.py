"""Presentations (.pptx) → light Markdown, a page for each slide.

Source: ECMA-376 part 1, sections 19 (PresentationML) and 21.1 (DrawingML text).
"""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from memoryd.documents.parsing.archive import Archive
from memoryd.documents.parsing.builder import TextBuilder, one_line
from memoryd.documents.parsing.office import (
    main_part,
    read_part,
    read_title,
    related_part,
    relations,
)
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.tables import write_markdown_table
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.documents.parsing.xml import attribute, local_name

_TITLES = ("title", "ctrTitle")
# Date, footer, number and picture of a slide: the same on all.
_NOT_TEXT = ("dt", "ftr", "sldNum", "hdr", "sldImg")


def parse_pptx(source: Source, limits: ParsingLimits) -> Parsed:
    """Return the text with the notes of each slide, by page and heading."""
    archive = Archive(source.data, limits)
    builder = TextBuilder(limits.text_chars)
    titles = []
    for number, part in enumerate(_slides(archive), 1):
        builder.start_page(number)
        titles.append(_write_slide(builder, read_part(archive, part)))
        notes = related_part(archive, part, "notesSlide")
        if notes:
            _write_notes(builder, read_part(archive, notes))
    return builder.build(read_title(archive) or next(filter(None, titles), ""), source.mime_type)


def _slides(archive: Archive) -> Iterator[str]:
    """Yield the parts of the slides in the order in which they are shown."""
    main = main_part(archive)
    parts = relations(archive, main)
    for element in read_part(archive, main).iter():
        if local_name(element) == "sldId":
            # It has two ids: its own, and that of the relation, which has a namespace.
            names = [name for name in element.attrib if name.endswith("}id")]
            _, part = parts.get(element.attrib[names[0]], ("", "")) if names else ("", "")
            if part in archive.names:
                yield part


def _write_slide(builder: TextBuilder, slide: Element) -> str:
    """Add the slide's shapes, its title first, and return that."""
    shapes = list(_shapes(slide))
    titles = [shape for shape in shapes if _placeholder(shape) in _TITLES]
    title = one_line(" ".join(_paragraphs(titles[0]))) if titles else ""
    builder.enter(1, title)
    builder.add(f"# {title}" if title else "")
    for shape in shapes:
        if shape not in titles[:1]:
            builder.add(_shape_text(shape))
    return title


def _write_notes(builder: TextBuilder, notes: Element) -> None:
    for shape in _shapes(notes):
        builder.add("\n".join(_paragraphs(shape)))


def _shapes(root: Element) -> Iterator[Element]:
    """Yield shapes and tables, also those in groups, in their order."""
    for element in root:
        name = local_name(element)
        if name == "tbl" or (name == "sp" and _placeholder(element) not in _NOT_TEXT):
            yield element
        elif name not in ("Fallback", "sp"):
            yield from _shapes(element)


def _placeholder(shape: Element) -> str:
    """Return what part of the slide's layout a shape fills, such as `title`, or nothing."""
    for element in shape.iter():
        if local_name(element) == "ph":
            return attribute(element, "type") or "body"
    return ""


def _shape_text(shape: Element) -> str:
    if local_name(shape) != "tbl":
        return "\n".join(_paragraphs(shape))
    rows = [
        [" ".join(_paragraphs(cell)) for cell in row if local_name(cell) == "tc"]
        for row in shape
        if local_name(row) == "tr"
    ]
    return write_markdown_table(rows) if rows else ""


def _paragraphs(shape: Element) -> Iterator[str]:
    for paragraph in shape.iter():
        if local_name(paragraph) == "p":
            text = "".join(_runs(paragraph)).strip()
            if text:
                yield text


def _runs(paragraph: Element) -> Iterator[str]:
    for element in paragraph.iter():
        name = local_name(element)
        if name == "t":
            yield element.text or ""
        elif name in ("br", "tab"):
            yield "\n" if name == "br" else " "
