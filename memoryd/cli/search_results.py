"""What `memoryd search` shows to people."""

import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from memoryd.cli.printing import print_table

_HIGHLIGHT = "bold yellow"
_INDENT = Text("   ")
_LINES = 4
"""How many lines of a chunk are shown."""
_SPACES = re.compile(r"\s+")
# What a terminal would obey.
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
_RANKS = ("dense", "lexical", "rerank")


def print_results(answer: dict[str, Any], *, offset: int) -> None:
    """Print each result: its title, its id, and what its best chunk says."""
    console = Console(highlight=False)
    if not answer["results"]:
        console.print("nothing found")
    for place, result in enumerate(answer["results"], offset + 1):
        _print_result(console, place, result)
    if answer["next_offset"] is not None:
        console.print(Text(f"more: --offset {answer['next_offset']}", style="dim"))


def print_explanation(answer: dict[str, Any], *, offset: int) -> None:
    """Print how the results came about: the plan, ranks and scores of each, milliseconds."""
    console = Console(highlight=False)
    searched = answer.get("collections", [answer])
    for each in searched:
        console.print(Text(_plan(each)))
    columns = ("#", "document", "chunk", "score", "cosine", "bm25", *_RANKS)
    print_table(columns, _rows_of_ranks(answer, offset))
    print_table(("step", "ms"), [row for each in searched for row in _rows_of_steps(each)])


def _plan(searched: dict[str, Any]) -> str:
    how = ", ".join(f"{arm} {plan}" for arm, plan in searched["plan"].items() if plan)
    scores, model = searched["score_type"], searched["model"]
    return f"{_name_of(searched)}plan: {how}; scores: {scores}; model: {model}"


def _rows_of_steps(searched: dict[str, Any]) -> list[tuple[str, str]]:
    steps = {**searched["timings_ms"], "all": searched["took_ms"]}
    return [(f"{_name_of(searched)}{step}", f"{ms:.1f}") for step, ms in steps.items()]


def _name_of(searched: dict[str, Any]) -> str:
    """Return the name of one of several collections, nothing of the only one."""
    return f"{searched['name']} " if "name" in searched else ""


def _print_result(console: Console, place: int, result: dict[str, Any]) -> None:
    console.print(_heading(place, result))
    best = result["chunks"][0]
    if where := _where(best):
        console.print(Text.assemble(_INDENT, (where, "dim")))
    for chunk in best.get("before", ()):
        _print_lines(console, _text_of(chunk, style="dim"))
    _print_lines(console, _text_of(best))
    for chunk in best.get("after", ()):
        _print_lines(console, _text_of(chunk, style="dim"))
    console.print()


def _heading(place: int, result: dict[str, Any]) -> Text:
    document = result["document"]
    id_, title = _shown(document["id"]), _shown(document["title"])
    heading = Text.assemble((f"{place}. ", "dim"), (title or id_, "bold"))
    if title:
        heading.append(f"  {id_}", style="cyan")
    heading.append(f"  {result['score']:.3f}", style="green")
    if collection := result.get("collection"):
        heading.append(f"  {_shown(collection)}", style="dim")
    return heading


def _where(chunk: dict[str, Any]) -> str:
    page = [f"page {chunk['page']}"] if chunk["page"] is not None else []
    return " > ".join((*page, *map(_shown, chunk["headings"])))


def _text_of(chunk: dict[str, Any], style: str = "") -> Text:
    """Return a chunk's text in one line, what is highlighted marked."""
    text, marked, at = chunk["text"], Text(style=style), 0
    for span in chunk.get("highlights", ()):
        marked.append(_shown(text[at : span["start"]]))
        marked.append(_shown(text[span["start"] : span["end"]]), style=_HIGHLIGHT)
        at = span["end"]
    marked.append(_shown(text[at:]))
    return marked


def _print_lines(console: Console, text: Text) -> None:
    """Print some lines of a text, from where the first highlight is."""
    lines = text.wrap(console, max(20, console.width - len(_INDENT) - 2))
    marked = (at for at, line in enumerate(lines) if line.spans)
    first = max(0, min(next(marked, 0), len(lines) - _LINES))
    for at in range(first, min(first + _LINES, len(lines))):
        before = "…" if at == first > 0 else ""
        after = "…" if at == first + _LINES - 1 < len(lines) - 1 else ""
        lines[at].rstrip()
        console.print(Text.assemble(_INDENT, before, lines[at], after))


def _rows_of_ranks(answer: dict[str, Any], offset: int) -> Iterator[list[str]]:
    for place, result in enumerate(answer["results"], offset + 1):
        for chunk in result["chunks"]:
            scores = (chunk.get(name) for name in ("score", "cosine", "bm25"))
            ranks = (chunk["explain"].get(name) for name in _RANKS)
            yield [
                str(place),
                _shown(result["document"]["id"]),
                chunk["id"],
                *("-" if score is None else f"{score:.3f}" for score in scores),
                *("-" if rank is None else str(rank["rank"]) for rank in ranks),
            ]


def _shown(text: str) -> str:
    """Return `text` in one line, without what a terminal would obey."""
    return _CONTROLS.sub("�", _SPACES.sub(" ", text))
