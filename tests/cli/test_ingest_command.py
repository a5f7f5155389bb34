"""`memoryd ingest` as a shell runs it: which files, how they go on, and what is watched."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from file_samples import make_docx, make_pdf
from servers import Running
from shell import end, run, start
from wire import Client

from memoryd.cli import sending
from memoryd.cli.client import connect
from memoryd.cli.files import Selection
from memoryd.cli.sending import Sender, batches_of, items_of
from memoryd.config import Settings
from memoryd.errors import InvalidInputError


def fill(folder: Path, *names: str) -> None:
    """Write a text into each of the files, which makes the folders too."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"cat {name}")


async def documents_of(client: Client, collection: str = "default") -> dict[str, Any]:
    answer = await client.get(f"/v1/collections/{collection}/documents?limit=1000")
    return {document["id"]: document for document in answer.ok()["documents"]}


async def listed_when(client: Client, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while not holds(documents := await documents_of(client)):  # noqa: ASYNC110 # nothing tells
            await asyncio.sleep(0.1)
    return documents


# --- Which files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        ((), (), ["a.txt", "deep/b.MD", "deep/er/c.pdf", "drafts/d.csv"]),
        (("*.py",), (), ["deep/code.py", "x.py"]),
        (("*.py", "*.txt"), (), ["a.txt", "deep/code.py", "x.py"]),
        (("deep/*.py",), (), ["deep/code.py"]),
        ((), ("drafts",), ["a.txt", "deep/b.MD", "deep/er/c.pdf"]),
        ((), ("*.txt", "deep/er"), ["deep/b.MD", "drafts/d.csv"]),
        (("*.py",), ("x.*",), ["deep/code.py"]),
        (("*",), ("deep", "drafts"), ["a.txt", "image.png", "x.py"]),
    ],
)
def test_files_are_picked_in_folders(
    tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], found: list[str]
) -> None:
    fill(tmp_path, "a.txt", "image.png", "x.py", ".hidden.txt", ".git/config.txt")
    fill(tmp_path, "deep/b.MD", "deep/code.py", "deep/er/c.pdf", "drafts/d.csv")
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    paths = Selection(include, exclude).find([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == found


def test_a_file_that_is_named_is_sent_whatever_its_type(tmp_path: Path) -> None:
    fill(tmp_path, "x.py")
    assert list(Selection(exclude=("*",)).find([tmp_path / "x.py"])) == [tmp_path / "x.py"]
    with pytest.raises(InvalidInputError, match="there is no file or folder"):
        list(Selection().find([tmp_path / "none"]))


async def test_the_options_for_files_reach_the_search(running: Running, tmp_path: Path) -> None:
    fill(tmp_path, "a.py", "b.py", "c.txt")
    options = ("--include", "*.py", "--exclude", "b.*", "--url", running.client.url)
    said = await run("ingest", ".", *options, cwd=tmp_path)
    assert (said.status, said.out) == (0, "1 files: 1 stored\n")
    assert list(await documents_of(running.client)) == ["a.py"]


# --- What becomes of them ------------------------------------------------------------------------


async def test_files_of_several_types_are_read_by_the_server(
    running: Running, tmp_path: Path
) -> None:
    (tmp_path / "a.docx").write_bytes(make_docx())
    (tmp_path / "b.pdf").write_bytes(make_pdf([["Pets"]]))
    (tmp_path / "c.html").write_text("<title>Pets</title><p>dog")
    (tmp_path / "d ü\"'%41.md").write_text("# Fruit\n\napple")
    (tmp_path / "e.txt").write_bytes("Äpfel".encode("utf-16"))
    (tmp_path / "empty.txt").write_text("")
    said = await run("ingest", ".", "--url", running.client.url, "--json", cwd=tmp_path)
    assert said.status == 1
    report = said.json
    assert report["counts"] == {"stored": 5, "failed": 1}
    [failure] = report["failures"]
    assert failure["id"] == "empty.txt"
    assert "empty" in failure["error"]
    documents = await documents_of(running.client)
    assert documents["c.html"]["title"] == "Pets"
    assert documents["d ü\"'%41.md"]["status"] == "stored"
    assert report["chunks"] == sum(document["chunks"] for document in documents.values())
    shown = await run("documents", "show", "e.txt", "--url", running.client.url, "--json")
    assert shown.json["text"] == "Äpfel"


async def test_a_collection_is_filled_by_its_name(running: Running, tmp_path: Path) -> None:
    (await running.client.post("/v1/collections", {"name": "notes"})).ok(201)
    fill(tmp_path, "a.txt")
    said = await run("ingest", ".", "-c", "notes", "--url", running.client.url, cwd=tmp_path)
    assert said.status == 0
    assert list(await documents_of(running.client, "notes")) == ["a.txt"]
    assert await documents_of(running.client) == {}


async def test_what_is_not_waited_for_is_told_with_its_jobs(
    running: Running, tmp_path: Path
) -> None:
    fill(tmp_path, *(f"n{number}.txt" for number in range(100)))
    url = ("--url", running.client.url)
    said = await run("ingest", ".", "--no-wait", "--json", *url, cwd=tmp_path)
    assert said.status == 0
    assert said.json["counts"] == {"queued": 100}
    assert len(said.json["jobs"]) == 2
    for job in said.json["jobs"]:
        shown = await run("jobs", "show", job, "--follow", *url)
        assert shown.status == 0, shown
    again = await run("ingest", ".", *url, cwd=tmp_path)
    assert again.out == "100 files: 100 unchanged\n"


async def test_what_takes_longer_than_an_answer_is_followed_by_its_job(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_WAIT_FOR_OUTCOMES_S", 0)
    monkeypatch.setattr(sending, "_JOB_POLL_S", 0.05)
    model = await running.memory.engine.model("toy")
    model._backend.delay_s = 0.2  # type: ignore[attr-defined] # the toy's
    await running.client.store(id=str(tmp_path / "n0.txt"), text="dog")
    fill(tmp_path, *(f"n{number}.txt" for number in range(5)))
    (tmp_path / "bad.txt").write_text("nan")
    noted: list[Any] = []
    files = list(Selection().find([tmp_path]))
    async with connect(Settings(), running.client.url) as client:
        sender = Sender(client, "/v1/collections/default", noted.extend)
        await sender.send_all(batches_of(items_of(files, noted.extend)))
    assert Counter(outcome["status"] for outcome in noted) == {
        "stored": 4,
        "replaced": 1,
        "failed": 1,
    }
    [failed] = [outcome for outcome in noted if outcome["status"] == "failed"]
    assert failed["id"] == str(tmp_path / "bad.txt")
    assert "no finite vector" in failed["error"]["message"]


# --- Deleting and watching -----------------------------------------------------------------------


async def test_only_what_is_asked_for_is_deleted_with_its_file(
    running: Running, tmp_path: Path
) -> None:
    fill(tmp_path, "in/a.txt", "in/b.txt", "other/c.txt")
    url = ("--url", running.client.url)
    await run("ingest", "in", "other", *url, cwd=tmp_path)
    await running.client.store(id="in/made-by-hand", text="dog")
    await running.client.store(id="elsewhere/x.txt", text="dog")
    for name in ("in/a.txt", "other/c.txt"):
        (tmp_path / name).unlink()
    kept = await run("ingest", "in", *url, cwd=tmp_path)
    assert kept.out == "1 files: 1 unchanged\n"
    assert len(await documents_of(running.client)) == 5
    said = await run("ingest", "in", "--delete", "--json", *url, cwd=tmp_path)
    assert sorted(said.json["deleted"]) == ["in/a.txt", "in/made-by-hand"]
    assert set(await documents_of(running.client)) == {"in/b.txt", "other/c.txt", "elsewhere/x.txt"}


async def test_a_watched_folder_is_followed_until_ctrl_c(running: Running, tmp_path: Path) -> None:
    client = running.client
    fill(tmp_path, "in/a.txt", "in/b.txt")
    arguments = ("ingest", "in", "--watch", "--delete", "--json", "--url", client.url)
    process = await start(*arguments, cwd=tmp_path)
    try:
        await listed_when(client, lambda found: len(found) == 2)
        fill(tmp_path, "in/new/c.txt", "in/x.png")
        await listed_when(client, lambda found: "in/new/c.txt" in found)
        (tmp_path / "in/a.txt").write_text("dog")
        await listed_when(client, lambda found: found["in/a.txt"]["version"] == 2)
        (tmp_path / "in/b.txt").unlink()
        documents = await listed_when(client, lambda found: "in/b.txt" not in found)
        assert set(documents) == {"in/a.txt", "in/new/c.txt"}
    finally:
        process.send_signal(signal.SIGINT)
        said = await end(process)
    assert said.status == 130
    reports = [orjson.loads(line) for line in said.out.splitlines()]
    assert reports[0]["counts"] == {"stored": 2}
    assert reports[-1]["deleted"] == ["in/b.txt"]


async def test_without_being_asked_a_watched_folder_deletes_nothing(
    running: Running, tmp_path: Path
) -> None:
    fill(tmp_path, "in/a.txt", "in/b.txt")
    arguments = ("ingest", "in", "--watch", "--url", running.client.url)
    process = await start(*arguments, cwd=tmp_path)
    try:
        await listed_when(running.client, lambda found: len(found) == 2)
        (tmp_path / "in/b.txt").unlink()
        fill(tmp_path, "in/c.txt")
        documents = await listed_when(running.client, lambda found: "in/c.txt" in found)
        assert "in/b.txt" in documents
    finally:
        process.send_signal(signal.SIGINT)
        await end(process)


async def test_a_file_is_not_watched(running: Running, tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    said = await run("ingest", "a.txt", "--watch", "--url", running.client.url, cwd=tmp_path)
    assert (said.status, "--watch is for folders" in said.err) == (1, True)
