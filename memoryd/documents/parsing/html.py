"""HTML → light Markdown."""

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from memoryd.documents.parsing.builder import TextBuilder, one_line
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.tables import write_markdown_table
from memoryd.documents.parsing.types import Parsed, ParsingLimits

_NOT_TEXT = frozenset(
    (
        *("head", "script", "style", "noscript", "template", "svg", "math", "iframe", "object"),
        *("embed", "canvas", "audio", "video", "nav", "button", "select", "textarea", "input"),
        *("datalist", "dialog", "-comment", "!doctype"),
    )
)
_INLINE = frozenset(
    (
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn"),
        *("em", "font", "i", "ins", "kbd", "label", "mark", "meter", "output", "progress", "q"),
        *("rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub", "sup"),
        *("time", "tt", "u", "var", "wbr"),
    )
)
_HEADING = re.compile(r"h([1-6])$")
_FENCE = re.compile(r"`{3,}")
_SPACES = re.compile(r"\s+")
_LISTS = frozenset(("ul", "ol", "menu"))
# What doesn't end a line by its own end.
_IN_LINE = frozenset(("-text", "-comment", "br", "img"))


def parse_html(source: Source, limits: ParsingLimits) -> Parsed:
    """Return the text, and its sections by heading.

    What is no text of the page is left out: scripts, styles, navigation, controls, what is hidden.
    """
    builder = TextBuilder(limits.text_chars)
    title = write_html(builder, source.text)
    return builder.build(title, source.mime_type)


def write_html(builder: TextBuilder, html: str) -> str:
    """Add the text of a page to `builder`, and return its title."""
    page = LexborHTMLParser(html)
    if page.root is not None:
        _Writer(builder).write(page.root)
    title = page.css_first("title") or page.css_first("h1")
    return one_line(title.text()) if title else ""


class _Writer:
    """Walk a page without recursion, since pages nest as deep as they like."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._line: list[str] = []
        self._lists: list[_List] = []
        self._marker = ""
        self._was_item = False

    def write(self, root: LexborNode) -> None:
        node: LexborNode | None = root
        while node is not None:
            if self._enter(node) and node.child is not None:
                node = node.child
            else:
                node = self._leave(node, root)
        self._end_block()

    def _enter(self, node: LexborNode) -> bool:
        """Take in `node`, and say whether its children are to follow."""
        tag = node.tag or ""
        if tag == "-text":
            self._line.append(_SPACES.sub(" ", node.text_content or ""))
        elif tag == "br":
            self._line.append("\n")
        elif tag == "img":
            self._line.append(f" {node.attributes.get('alt') or ''} ")
        elif tag in _INLINE:
            return not _is_hidden(node)
        elif tag not in _NOT_TEXT and not _is_hidden(node):
            self._end_block()
            return self._enter_block(node, tag)
        return False

    def _enter_block(self, node: LexborNode, tag: str) -> bool:
        heading = _HEADING.match(tag)
        if heading:
            self._builder.add_heading(int(heading[1]), _inline_text(node))
        elif tag == "pre":
            self._builder.add(_fenced(node.text()))
        elif tag == "table" and _is_data(node):
            self._builder.add(write_markdown_table(_rows(node)))
        else:
            if tag in _LISTS:
                self._lists.append(_List(node.mem_id, is_ordered=tag == "ol"))
            elif tag == "li" and self._lists:
                self._marker = self._lists[-1].next_marker()
            return True
        self._was_item = False
        return False

    def _leave(self, node: LexborNode, root: LexborNode) -> LexborNode | None:
        """Return the node that follows `node` and what it holds."""
        while True:
            if node.tag not in _INLINE and node.tag not in _IN_LINE:
                self._end_block()
            if self._lists and self._lists[-1].mem_id == node.mem_id:
                self._lists.pop()
            if node.mem_id == root.mem_id or node.next is not None or node.parent is None:
                return None if node.mem_id == root.mem_id else node.next
            node = node.parent

    def _end_block(self) -> None:
        text = "\n".join(map(one_line, "".join(self._line).split("\n"))).strip()
        self._line.clear()
        if not text:
            return
        indent = "  " * (len(self._lists) - 1)
        is_item = bool(self._marker)
        text = text.replace("\n", "\n  " + indent) if self._lists else text
        lead = self._marker or "  " if self._lists else self._marker
        gap = "\n" if is_item and self._was_item else "\n\n"
        self._builder.add(indent + lead + text, gap)
        self._marker, self._was_item = "", bool(self._lists)


class _List:
    """Count the items of a list."""

    def __init__(self, mem_id: int, *, is_ordered: bool) -> None:
        self.mem_id = mem_id
        self._is_ordered = is_ordered
        self._count = 0

    def next_marker(self) -> str:
        self._count += 1
        return f"{self._count}. " if self._is_ordered else "- "


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return "hidden" in attributes or attributes.get("aria-hidden") == "true"


def _is_data(table: LexborNode) -> bool:
    """Say whether a table holds data; many only lay out a page or a message."""
    if table.attributes.get("role") == "presentation":
        return False
    if table.css_first("table table, h1, h2, h3, h4, h5, h6, pre, ul, ol") is not None:
        return False
    return len(table.css("tr")) > 1 and max(map(len, _rows(table)), default=0) > 1


def _rows(table: LexborNode) -> list[list[str]]:
    rows = ([_inline_text(cell) for cell in row.css("td, th")] for row in table.css("tr"))
    return [row for row in rows if any(row)]


def _inline_text(root: LexborNode) -> str:
    parts = []
    for node in root.traverse(include_text=True):
        if node.tag == "-text":
            is_text = node.parent is None or node.parent.tag not in _NOT_TEXT
            parts.append(node.text_content or "" if is_text else "")
        elif node.tag not in _INLINE:
            parts.append(" ")
    return one_line("".join(parts))


def _fenced(code: str) -> str:
    longest = max(map(len, _FENCE.findall(code)), default=2)
    fence = "`" * (longest + 1)
    code = code.strip("\r\n")
    return f"{fence}\n{code}\n{fence}" if code.strip() else ""
