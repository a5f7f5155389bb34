"""Rows of cells → text in which each row can be understood without the others."""

from collections.abc import Iterable, Iterator, Sequence

from memoryd.documents.parsing.builder import one_line


def write_records(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each row: `name: value; name: value`, or the values alone without header.

    A chunk holds a few rows of a long table, which without the names of the columns say little.
    """
    filled = (row for row in (list(map(one_line, row)) for row in rows) if any(row))
    first = next(filled, None)
    if first is None:
        return
    second = next(filled, None)
    if second is None or not _is_header(first, second):
        yield _join(first)
        if second is None:
            return
        yield _join(second)
        yield from map(_join, filled)
        return
    yield _with_names(first, second)
    for row in filled:
        yield _with_names(first, row)


def _is_header(first: Sequence[str], second: Sequence[str]) -> bool:
    """Say whether `first` holds names: different words, one for each cell of the `second` row."""
    names = [cell for cell in first if cell]
    cells = [name for name, cell in zip(first, second, strict=False) if cell]
    return (
        len(names) > 1
        and len(set(names)) == len(names)
        and not any(map(_is_number, names))
        and all(cells)
        and len(second) <= len(first)
    )


def _is_number(cell: str) -> bool:
    return any(map(str.isdigit, cell)) and not any(map(str.isalpha, cell))


def _join(row: Sequence[str]) -> str:
    return "; ".join(filter(None, row))


def _with_names(names: Sequence[str], row: Sequence[str]) -> str:
    padded = [*names, *[""] * (len(row) - len(names))]
    cells = zip(padded, row, strict=False)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in cells if cell)


def write_markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return `rows`, of which the first is the header, as a table of Markdown."""
    width = max(map(len, rows))
    lines = [_table_line([*row, *[""] * (width - len(row))]) for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _table_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"
