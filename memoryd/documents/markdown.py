"""Find the blocks of a Markdown text that its structure shows in: headings, code, tables, lists.

The rules are CommonMark's for blocks at the left margin, and GitHub's for tables; what stands in
quotes or deep in lists is text. One pass over the lines, in linear time whatever they are.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from memoryd.documents.outline import HeadingPath, Section

BlockKind = Literal["heading", "front matter", "code", "table", "list"]

_LINE = re.compile(r"[^\n\r\u2028\u2029]*+(?:\r\n|[\n\r\u2028\u2029]|\Z)")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]++(.*))?$")
_ATX_END = re.compile(r"(?:^|[ \t]+)#+[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=++|-++)[ \t]*+$")
_FENCE = re.compile(r" {0,3}(`{3,}+(?!.*`)|~{3,}+)")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}+[.)])[ \t]++\S")
_RULE = re.compile(r" {0,3}(?:(?:-[ \t]*+){3,}+|(?:\*[ \t]*+){3,}+|(?:_[ \t]*+){3,}+)$")
_DELIMITERS = re.compile(r"[ \t]*+\|?+(?:[ \t]*+:?+-++:?+[ \t]*+(?:\||$))++[ \t]*+$")
_FRONT_MATTER_TITLE = re.compile(r"^title[ \t]*:[ \t]*(.*)$", re.MULTILINE)
_MOST_FRONT_MATTER_LINES = 200


@dataclass(frozen=True)
class Block:
    """Be `text[start:end]`, whole lines without the last line's end."""

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    """Of a heading: 1 is the highest."""
    heading: str = ""


def scan_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of `text` in order; plain paragraphs are between them."""
    lines = [_Line(match.start(), match[0].rstrip("\r\n\u2028\u2029")) for match in _lines(text)]
    index = _front_matter_length(lines)
    if index:
        yield Block("front matter", 0, lines[index - 1].end)
    while index < len(lines):
        block, following = _block_at(lines, index)
        if block:
            yield block
        index = following


def outline_markdown(text: str) -> list[Section]:
    """Return the sections of `text`, from each heading to the next."""
    path = HeadingPath()
    sections: list[Section] = []
    start = 0
    for block in scan_blocks(text):
        if block.kind != "heading":
            continue
        if path.path:
            sections.append(Section(start, block.start, path.path))
        path.enter(block.level, block.heading)
        start = block.start
    if path.path:
        sections.append(Section(start, len(text), path.path))
    return sections


def find_title(text: str) -> str:
    """Return the title in the front matter, else the first heading of level 1, else nothing."""
    for block in scan_blocks(text):
        if block.kind == "front matter":
            match = _FRONT_MATTER_TITLE.search(text, block.start, block.end)
            if match and match[1].strip("\"' \t"):
                return match[1].strip("\"' \t")
        if block.kind == "heading" and block.level == 1:
            return block.heading
    return ""


@dataclass(frozen=True)
class _Line:
    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def is_blank(self) -> bool:
        return not self.text.strip()


def _lines(text: str) -> Iterator[re.Match[str]]:
    return (match for match in _LINE.finditer(text) if match[0])


def _front_matter_length(lines: Sequence[_Line]) -> int:
    """Return how many lines the YAML at the top takes."""
    if not lines or lines[0].text.rstrip() != "---":
        return 0
    for index, line in enumerate(lines[1:_MOST_FRONT_MATTER_LINES], 1):
        if line.text.rstrip() in ("---", "..."):
            return index + 1
    return 0


def _block_at(lines: Sequence[_Line], index: int) -> tuple[Block | None, int]:
    """Return the block that begins at line `index`, if any, and the line to go on with."""
    line = lines[index]
    heading = _ATX.match(line.text)
    if heading:
        words = _ATX_END.sub("", heading[2] or "").strip()
        return Block("heading", line.start, line.end, len(heading[1]), words), index + 1
    fence = _FENCE.match(line.text)
    if fence:
        return _through("code", lines, index, _fence_end(lines, index, fence[1]))
    if index + 1 < len(lines) and not line.is_blank:
        below = lines[index + 1].text
        if "|" in line.text and "|" in below and _DELIMITERS.match(below):
            return _through("table", lines, index, _table_end(lines, index))
        setext = _SETEXT.match(below)
        if setext and _begins_paragraph(lines, index):
            level = 1 if setext[1][0] == "=" else 2
            end = lines[index + 1].end
            return Block("heading", line.start, end, level, line.text.strip()), index + 2
    if _ITEM.match(line.text) and not _RULE.match(line.text):
        return _through("list", lines, index, _list_end(lines, index))
    return None, index + 1


def _through(
    kind: BlockKind, lines: Sequence[_Line], first: int, last: int
) -> tuple[Block | None, int]:
    return Block(kind, lines[first].start, lines[last].end), last + 1


def _begins_paragraph(lines: Sequence[_Line], index: int) -> bool:
    return not _ITEM.match(lines[index].text) and (index == 0 or lines[index - 1].is_blank)


def _fence_end(lines: Sequence[_Line], index: int, fence: str) -> int:
    for last in range(index + 1, len(lines)):
        closing = lines[last].text.strip()
        if len(closing) >= len(fence) and not closing.strip(fence[0]):
            return last
    return len(lines) - 1


def _table_end(lines: Sequence[_Line], index: int) -> int:
    last = index + 1
    while last + 1 < len(lines) and "|" in lines[last + 1].text:
        last += 1
    return last


def _list_end(lines: Sequence[_Line], index: int) -> int:
    """Return the last line of a list: items, lines below them, and gaps of one blank line."""
    last = index
    for following in range(index + 1, len(lines)):
        line = lines[following]
        if line.is_blank:
            if lines[following - 1].is_blank:
                break
            continue
        after_gap = lines[following - 1].is_blank
        belongs = line.text[0] in " \t" or _ITEM.match(line.text) is not None
        if (after_gap and not belongs) or _ATX.match(line.text) or _FENCE.match(line.text):
            break
        last = following
    return last
