"""Word files (.docx) → light Markdown.

Source: ECMA-376 part 1, section 17 (WordprocessingML).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from memoryd.documents.parsing.archive import Archive
from memoryd.documents.parsing.builder import TextBuilder, one_line
from memoryd.documents.parsing.office import main_part, read_part, read_title, related_part
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.tables import write_markdown_table
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.documents.parsing.xml import attribute, local_name

_BODY_TEXT_LEVEL = 9
_NOTES = ("footnotes", "endnotes")
_CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011"}
# Deleted text, the copy of a drawing for old programs, and field codes such as "TOC \o".
_NOT_TEXT = frozenset(("del", "moveFrom", "Fallback", "instrText", "delText"))
_PARAGRAPH_ELEMENTS = frozenset(("p", "tbl"))


def parse_docx(source: Source, limits: ParsingLimits) -> Parsed:
    """Return the text with its notes at the end, and its sections by heading."""
    archive = Archive(source.data, limits)
    part = main_part(archive)
    writer = _Writer(TextBuilder(limits.text_chars), _read_styles(archive, part))
    writer.write(read_part(archive, part))
    for kind in _NOTES:
        notes = related_part(archive, part, kind)
        if notes:
            writer.write(read_part(archive, notes))
    return writer.builder.build(read_title(archive) or writer.title, source.mime_type)


@dataclass(frozen=True)
class _Style:
    name: str
    based_on: str
    level: int | None
    """Of a heading, 0 the highest, as Word counts."""
    is_list: bool


def _read_styles(archive: Archive, part: str) -> dict[str, _Style]:
    path = related_part(archive, part, "styles")
    if path is None:
        return {}
    elements = (each for each in read_part(archive, path) if local_name(each) == "style")
    return {attribute(each, "styleId") or "": _style(each) for each in elements}


def _style(element: Element) -> _Style:
    name = (_value(element, "name") or "").lower()
    level = _value(element, "outlineLvl")
    return _Style(
        name=name,
        based_on=_value(element, "basedOn") or "",
        level=_level(level) if level else _level_of_name(name),
        is_list=_first(element, "numPr") is not None,
    )


def _level(value: str) -> int | None:
    level = int(value) if value.isdecimal() else _BODY_TEXT_LEVEL
    return level if level < _BODY_TEXT_LEVEL else None


def _level_of_name(name: str) -> int | None:
    number = name.removeprefix("heading ")
    return int(number) - 1 if number != name and number in "123456789" and number else None


def _first(element: Element, name: str) -> Element | None:
    return next((each for each in element.iter() if local_name(each) == name), None)


def _value(element: Element, name: str) -> str | None:
    found = _first(element, name)
    return None if found is None else attribute(found, "val")


def _child(element: Element, name: str) -> Element | None:
    return next((each for each in element if local_name(each) == name), None)


class _Writer:
    def __init__(self, builder: TextBuilder, styles: dict[str, _Style]) -> None:
        self.builder = builder
        self.title = ""
        self._styles = styles
        self._was_item = False

    def write(self, root: Element) -> None:
        """Add the paragraphs and tables below `root`, wherever they stand: boxes, controls."""
        for element in _blocks(root):
            if local_name(element) == "tbl":
                self._write_table(element)
            else:
                self._write_paragraph(element)
                for boxed in _boxes(element):
                    self.write(boxed)

    def _write_table(self, table: Element) -> None:
        rows = [_cells(row) for row in _children(table, "tr")]
        rows = [row for row in rows if any(row)]
        self._was_item = False
        if len(rows) > 1 and max(map(len, rows)) > 1:
            self.builder.add(write_markdown_table(rows))
        else:
            self.builder.add("\n\n".join(" ".join(row) for row in rows))

    def _write_paragraph(self, paragraph: Element) -> None:
        text = _text(paragraph).strip()
        if not text:
            return
        properties = _child(paragraph, "pPr")
        style = self._style_chain(properties)
        level = self._heading_level(properties, style)
        is_item = level is None and _is_item(properties, style)
        if style and style[0].name == "title" and not self.title:
            self.title = one_line(text)
        if level is None:
            gap = "\n" if is_item and self._was_item else "\n\n"
            self.builder.add(f"- {text}" if is_item else text, gap)
        else:
            self.builder.add_heading(min(level + 1, 6), text)
        self._was_item = is_item

    def _style_chain(self, properties: Element | None) -> list[_Style]:
        """Return the paragraph's style and those that it is based on."""
        element = None if properties is None else _child(properties, "pStyle")
        name = "" if element is None else attribute(element, "val") or ""
        chain: list[_Style] = []
        while name in self._styles and self._styles[name] not in chain:
            chain.append(self._styles[name])
            name = chain[-1].based_on
        return chain

    def _heading_level(self, properties: Element | None, style: list[_Style]) -> int | None:
        own = None if properties is None else _child(properties, "outlineLvl")
        if own is not None:
            return _level(attribute(own, "val") or "")
        return next((each.level for each in style if each.level is not None), None)


def _is_item(properties: Element | None, style: list[_Style]) -> bool:
    own = None if properties is None else _child(properties, "numPr")
    if own is not None:
        return _value(own, "numId") != "0"  # 0 takes a paragraph out of its style's list
    return any(each.is_list for each in style)


def _blocks(root: Element) -> Iterator[Element]:
    """Yield the paragraphs and tables that are in no other."""
    for element in root:
        name = local_name(element)
        if name in _PARAGRAPH_ELEMENTS:
            yield element
        elif name not in _NOT_TEXT:
            yield from _blocks(element)


def _boxes(paragraph: Element) -> Iterator[Element]:
    """Yield what text boxes in `paragraph` hold."""
    for element in paragraph:
        name = local_name(element)
        if name == "txbxContent":
            yield element
        elif name not in _NOT_TEXT:
            yield from _boxes(element)


def _children(element: Element, name: str) -> Iterator[Element]:
    """Yield the rows of a table or cells of a row, also those in content controls."""
    for child in element:
        if local_name(child) == name:
            yield child
        elif local_name(child) in ("sdt", "sdtContent", "customXml", "ins"):
            yield from _children(child, name)


def _cells(row: Element) -> list[str]:
    cells = _children(row, "tc")
    return [
        one_line(" ".join(_text(each) for each in cell.iter() if local_name(each) == "p"))
        for cell in cells
    ]


def _text(element: Element) -> str:
    return "".join(_runs(element))


def _runs(element: Element) -> Iterator[str]:
    for child in element:
        name = local_name(child)
        if name == "t":
            yield child.text or ""
        elif name in _CHARACTERS:
            yield _CHARACTERS[name]
        elif name not in _NOT_TEXT and name not in ("pPr", "rPr", "txbxContent"):
            yield from _runs(child)
