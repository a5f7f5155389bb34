"""Files are read in processes apart: none ends the server, and none is left over."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio
from file_samples import (
    billion_laughs,
    change_entry,
    make_docx,
    make_eml,
    make_encrypted_pdf,
    make_epub,
    make_far_cells,
    make_lying_zip_bomb,
    make_pdf,
    make_pptx,
    make_xlsx,
    make_zip,
    make_zip_bomb,
)

from memoryd.documents.parsing.types import Parsed
from memoryd.errors import InvalidInputError, MemorydError, StoppingError, TooLargeError
from memoryd.parsers.pool import ParserPool, ProcessLimits, open_parsers

GOOD = b"# Title\n\nText."
# Parsed in the square of its depth: it keeps a process busy for minutes.
ENDLESS = b"<!DOCTYPE html>" + b"<div>" * 300_000 + b"x"


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[ParserPool]:
    async with open_parsers(limits=ProcessLimits(cpu_s=3)) as pool:
        yield pool


def worker_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "memoryd.parsers.worker" in child.cmdline()]


async def wait_until_busy() -> psutil.Process:
    async with asyncio.timeout(20):
        while True:
            for worker in worker_processes():
                if worker.cpu_times().user > 0.4:  # more than its start takes
                    return worker
            await asyncio.sleep(0.05)


async def test_a_file_is_read(pool: ParserPool) -> None:
    parsed = await pool.parse_file(GOOD, "a.md", None)
    assert (parsed.text, parsed.title) == (GOOD.decode(), "Title")
    assert parsed.sections[0].headings == ("Title",)


async def test_a_process_reads_many_files(pool: ParserPool) -> None:
    await pool.parse_file(GOOD, "a.md", None)
    [worker] = worker_processes()
    for _ in range(20):
        await pool.parse_file(GOOD, "a.md", None)
    assert worker_processes() == [worker]


async def test_files_at_once_get_no_more_processes_than_there_are_places() -> None:
    async with open_parsers(size=2) as pool:
        names = [f"{number}.txt" for number in range(40)]
        parsed = await asyncio.gather(
            *(pool.parse_file(name.encode(), name, "text/plain") for name in names)
        )
        assert [each.text for each in parsed] == names
        assert len(worker_processes()) == 2
    assert worker_processes() == []


async def test_an_idle_process_ends() -> None:
    async with open_parsers(idle_s=0.2) as pool:
        await pool.parse_file(GOOD, "a.md", None)
        async with asyncio.timeout(10):
            while worker_processes():  # noqa: ASYNC110 # processes have no events
                await asyncio.sleep(0.05)
        assert (await pool.parse_file(GOOD, "a.md", None)).title == "Title"


# --- Fifty files that are broken -------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def flipped(data: bytes, seed: int) -> bytes:
    rng = random.Random(seed)  # noqa: S311 # it breaks files, and keeps no secrets
    changed = bytearray(data)
    for _ in range(40):
        changed[rng.randrange(8, len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def nested_xml(depth: int) -> bytes:
    return b"<w:sdt xmlns:w='x'>" + b"<w:sdt>" * depth + b"</w:sdt>" * depth + b"</w:sdt>"


OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
MAIN = "word/document.xml"
REFUSED = {
    "empty.txt": (b"", "empty"),
    "blank.md": (b" \n\n", "empty"),
    "mark.txt": (b"\xff\xfe", "no text"),
    "noise.bin": (random.Random(1).randbytes(5000), "unknown type"),  # noqa: S311 # no secret
    "noise.txt": (bytes(range(256)) * 20, "unknown type"),
    "zeros.txt": (bytes(5000), "unknown type"),
    "picture.txt": (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image"),
    "photo.pdf": (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG image"),
    "text.txt.gz": (b"\x1f\x8b\x08" + bytes(100), "gzip"),
    "table.parquet": (b"PAR1" + bytes(100), "Parquet"),
    "rich.doc": (rb"{\rtf1 hello}", "rich text"),
    "old.doc": (OLD_OFFICE, "Office 97"),
    "locked.docx": (OLD_OFFICE + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
    "locked.pdf": (make_encrypted_pdf(), "encrypted"),
    "head.pdf": (b"%PDF-1.7\n", "broken"),
    "garbage.pdf": (b"%PDF-1.7\n" + random.Random(2).randbytes(9000), "broken"),  # noqa: S311 # no secret
    "scan.pdf": (make_pdf([[], []]), "2 pages and no text"),
    "loop.pdf": (
        make_pdf([["x"]]).replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]"),
        "broken|no text|0 pages",
    ),
    "head.docx": (b"PK\x03\x04", "broken"),
    "cut.docx": (cut(make_docx()), "broken"),
    "cut.pptx": (cut(make_pptx()), "broken"),
    "cut.xlsx": (cut(make_xlsx()), "broken"),
    "cut.epub": (cut(make_epub()), "broken"),
    "plain.zip": (make_zip({"a.txt": "x"}), "zip archive"),
    "empty.zip": (make_zip({}) + b"PK\x03\x04", "unknown type"),
    "text.odt": (
        make_zip({"mimetype": "application/vnd.oasis.opendocument.text"}),
        "OpenDocument",
    ),
    "bomb.docx": (make_zip_bomb(), "unpacks to"),
    "liar.docx": (make_lying_zip_bomb(), "incomplete|broken"),
    "laughs.docx": (change_entry(make_docx(), MAIN, billion_laughs("w")), "defines entities"),
    "laughs.pptx": (
        change_entry(make_pptx(), "ppt/presentation.xml", billion_laughs("p")),
        "defines entities",
    ),
    "laughs.epub": (
        make_epub(**{"META-INF/container.xml": billion_laughs("container").decode()}),
        "defines entities",
    ),
    "bodiless.docx": (change_entry(make_docx(), MAIN, None), "has no word/document.xml"),
    "aimless.docx": (change_entry(make_docx(), "_rels/.rels", b"<a/>"), "where its document is"),
    "no-xml.docx": (change_entry(make_docx(), MAIN, b"{}"), "is no XML"),
    "styles.docx": (change_entry(make_docx(), "word/styles.xml", b"<"), "is no XML"),
    "deep.docx": (change_entry(make_docx(), MAIN, nested_xml(50_000)), "nested too deep"),
    "slides.pptx": (change_entry(make_pptx(), "ppt/slides/slide1.xml", b"<a>"), "is no XML"),
    "far.xlsx": (make_far_cells("T1048576"), "spans 1048576 rows"),
    "farther.xlsx": (make_far_cells("XFD1048576"), "SIGABRT"),
    "sheet.xlsx": (
        change_entry(make_xlsx(), "xl/worksheets/sheet1.xml", b"<worksheet><sheetData><row>"),
        "broken",
    ),
    "bookless.epub": (make_epub(**{"META-INF/container.xml": "<a/>"}), "where its contents are"),
    "chapterless.epub": (make_epub(**{"OPS/book.opf": "<package/>"}), "no text"),
    "drm.epub": (
        make_epub(
            **{
                "META-INF/encryption.xml": '<e><CipherReference URI="OPS/text/b%20b.xhtml"/></e>',
            }
        ),
        "encrypted",
    ),
    "cut.json": (b'{"a": [1, 2', "no JSON"),
    "words.json": (b"not json", "no JSON"),
    "deep.json": (b"[" * 100_000 + b"]" * 100_000, "no JSON"),
    "second.jsonl": (b'{"a": 1}\n{"a"\n', "line 2"),
    "deep.html": (ENDLESS, "within 3 s"),
    "nul.csv": (b'a,b\n"' + b"x" * 100, "^$"),
    "headers.eml": (b"Content-Type: message/rfc822\n" * 3 + b"\n", "^$"),
}
"""Name: bytes, and what the reason says; `^$` where they may be read after all."""


@pytest.mark.parametrize("name", REFUSED)
async def test_a_broken_file_is_refused_with_a_reason(pool: ParserPool, name: str) -> None:
    data, reason = REFUSED[name]
    if reason == "^$":
        assert await read_or_refused(pool, data, name)
    else:
        with pytest.raises(InvalidInputError, match=reason):
            await pool.parse_file(data, name, None)
    assert (await pool.parse_file(GOOD, "a.md", None)).title == "Title"
    await pool.close()
    assert worker_processes() == []


async def read_or_refused(pool: ParserPool, data: bytes, name: str) -> Parsed | MemorydError:
    try:
        return await pool.parse_file(data, name, None)
    except InvalidInputError as error:
        return error


WHOLE = {
    "a.pdf": make_pdf([["Words."] * 9] * 5, "Title", [("One", 0)]),
    "a.docx": make_docx(),
    "a.pptx": make_pptx(),
    "a.xlsx": make_xlsx(),
    "a.epub": make_epub(),
    "a.eml": make_eml(),
    "a.html": b"<!DOCTYPE html><h1>x</h1><table><tr><td>1<td>2<tr><td>3</table>",
}


@pytest.mark.parametrize("name", WHOLE)
async def test_files_with_bits_flipped_are_read_or_refused(pool: ParserPool, name: str) -> None:
    for seed in range(40):
        assert await read_or_refused(pool, flipped(WHOLE[name], seed), name)
    assert (await pool.parse_file(WHOLE[name], name, None)).text


@pytest.mark.parametrize("name", WHOLE)
async def test_files_cut_anywhere_are_read_or_refused(pool: ParserPool, name: str) -> None:
    data = WHOLE[name]
    for length in range(1, len(data), len(data) // 30):
        assert await read_or_refused(pool, data[:length], name)


# --- Limits of a process ---------------------------------------------------------------------


async def test_a_file_that_computes_too_long_is_refused() -> None:
    async with open_parsers(limits=ProcessLimits(cpu_s=1)) as pool:
        with pytest.raises(TooLargeError, match="1 s of computing"):
            await pool.parse_file(ENDLESS, "a.html", None)
        assert (await pool.parse_file(GOOD, "a.md", None)).title == "Title"


async def test_a_file_that_takes_too_long_is_refused() -> None:
    async with open_parsers(limits=ProcessLimits(wall_s=0.5)) as pool:
        with pytest.raises(TooLargeError, match=r"within 0\.5 s"):
            await pool.parse_file(ENDLESS, "a.html", None)
        assert worker_processes() == []


async def test_a_file_that_needs_too_much_memory_is_refused() -> None:
    async with open_parsers(limits=ProcessLimits(memory_bytes=64 << 20)) as pool:
        with pytest.raises(InvalidInputError, match=r"memory|ends the process"):
            await pool.parse_file(b"[" + b"1.5," * 5_000_000 + b"1]", "a.json", None)
        assert (await pool.parse_file(GOOD, "a.md", None)).title == "Title"


async def test_a_reader_who_leaves_leaves_no_process() -> None:
    async with open_parsers() as pool:
        reading = asyncio.create_task(pool.parse_file(ENDLESS, "a.html", None))
        await wait_until_busy()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert worker_processes() == []
        assert (await pool.parse_file(GOOD, "a.md", None)).title == "Title"


async def test_a_process_that_is_killed_is_replaced(pool: ParserPool) -> None:
    await pool.parse_file(GOOD, "a.md", None)
    [worker] = worker_processes()
    worker.kill()
    await asyncio.sleep(0.2)
    assert (await pool.parse_file(GOOD, "a.md", None)).title == "Title"


async def test_closing_ends_the_work() -> None:
    pool = ParserPool(1, ProcessLimits(), 60.0)
    reading = asyncio.create_task(pool.parse_file(ENDLESS, "a.html", None))
    await wait_until_busy()
    await pool.close()
    with pytest.raises(StoppingError):
        await reading
    with pytest.raises(StoppingError):
        await pool.parse_file(GOOD, "a.md", None)
    assert worker_processes() == []


SERVER = """
import asyncio
from memoryd.parsers.pool import ParserPool, ProcessLimits
page = b"<!DOCTYPE html>" + b"<div>" * 300_000
asyncio.run(ParserPool(1, ProcessLimits(), 60.0).parse_file(page, "a.html", None))
"""


async def test_a_server_that_is_killed_leaves_no_process() -> None:
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER)
    worker = await wait_until_busy()
    os.kill(server.pid, signal.SIGKILL)
    await server.wait()
    deadline = time.monotonic() + 10
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_parser_process_sees_no_secrets(
    pool: ParserPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORYD_DATABASE_URL", "postgresql://user:secret@host/db")
    await pool.parse_file(GOOD, "a.md", None)
    [worker] = worker_processes()
    assert not any(name.startswith("MEMORYD") for name in worker.environ())
