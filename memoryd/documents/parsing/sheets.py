"""Spreadsheets (.xlsx) → a line for each row."""

from collections.abc import Iterator
from datetime import date, time, timedelta
from io import BytesIO

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, SheetTypeEnum

from memoryd.documents.parsing.archive import Archive
from memoryd.documents.parsing.builder import TextBuilder
from memoryd.documents.parsing.office import read_title
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.tables import write_records
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.errors import InvalidInputError

# A sheet is a rectangle: two cells in its far corners make 17 thousand million.
_MOST_CELLS = 20_000_000


def parse_xlsx(source: Source, limits: ParsingLimits) -> Parsed:
    """Return a line for each row with the names of the columns, and a section for each sheet."""
    archive = Archive(source.data, limits)  # checks the sizes
    builder = TextBuilder(limits.text_chars)
    try:
        workbook = CalamineWorkbook.from_filelike(BytesIO(source.data))
        for sheet in workbook.sheets_metadata:
            if sheet.typ == SheetTypeEnum.WorkSheet:
                _write_sheet(builder, workbook.get_sheet_by_name(sheet.name))
    except CalamineError as error:
        raise InvalidInputError(f"the spreadsheet is broken: {error}") from error
    return builder.build(read_title(archive), source.mime_type)


def _write_sheet(builder: TextBuilder, sheet: CalamineSheet) -> None:
    if sheet.width * sheet.height > _MOST_CELLS:
        raise InvalidInputError(
            f"the sheet {sheet.name!r} spans {sheet.height} rows and {sheet.width} columns: "
            "remove the cells far outside of its table"
        )
    lines = write_records(_rows(sheet))
    first = next(lines, None)
    if first is None:
        return
    builder.add_heading(2, sheet.name)
    builder.add(first)
    for line in lines:
        builder.add(line, "\n")


def _rows(sheet: CalamineSheet) -> Iterator[list[str]]:
    return ([_cell(value) for value in row] for row in sheet.iter_rows())


def _cell(value: float | str | time | date | timedelta) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a spreadsheet's numbers are all fractions
    return str(value)
