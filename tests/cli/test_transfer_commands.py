import gzip
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import Running, Serve
from shell import Said, end, run, start
from toys import DIMENSIONS
from wire import Client

VECTOR = [1.0, *[0.0] * (DIMENSIONS - 1)]


async def told(client: Client, *arguments: str | Path) -> Said:
    return await run(*map(str, arguments), "--url", client.url)


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def stored(client: Client, collection: str = "default") -> list[Any]:
    answer = await client.get(f"/v1/collections/{collection}/export?vectors=true")
    return [orjson.loads(line) for line in answer.data.splitlines()][1:]


@pytest.mark.parametrize("name", ["all.ndjson", "all.ndjson.gz"])
async def test_a_collection_goes_to_a_file_and_into_another(
    client: Client, tmp_path: Path, name: str
) -> None:
    (await client.post("/v1/collections", {"name": "b", "metadata": {}})).ok(201)
    for number in range(30):
        await client.store(id=f"d{number}", text=f"Cat number {number}. ünï 😀")
    file = tmp_path / name
    said = await told(client, "export", file, "--vectors")
    assert (said.status, said.err) == (0, "exporting\n")
    assert f"{file}: 30 documents" in said.out
    data = file.read_bytes()
    assert data.startswith(b"\x1f\x8b") == name.endswith(".gz")
    assert names(tmp_path) == [name]
    said = await told(client, "import", file, "--collection", "b")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("30 stored (")
    assert await stored(client, "b") == await stored(client)


async def test_an_export_goes_to_standard_output(client: Client) -> None:
    await client.store(id="a", text="A cat.")
    said = await told(client, "export", "-")
    header, record, last = map(orjson.loads, said.out.splitlines())
    assert (header["memoryd"], record["id"], last["documents"]) == ("export", "a", 1)
    assert "vector" not in record["chunks"][0]


async def test_an_export_that_nobody_reads_ends_in_one_line(client: Client) -> None:
    for number in range(20):
        await client.store(id=f"d{number}", text="A cat. " * 5_000)
    process = await start("export", "-", "--url", client.url)
    assert process.stdout is not None
    await process.stdout.readline()
    process.stdout._transport.close()  # type: ignore[attr-defined] # it has no close of its own
    said = await end(process)
    assert said.status == 1
    assert said.err.endswith("nobody reads it any more\n")
    assert "ignored" not in said.err


async def test_a_file_that_is_there_is_replaced_by_force_alone(
    client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "x.ndjson"
    file.write_text("precious")
    said = await told(client, "export", file)
    assert said.status == 1
    assert "--force" in said.err
    assert file.read_text() == "precious"
    assert (await told(client, "export", file, "--force", "--json")).json == {
        "documents": 0,
        "bytes": file.stat().st_size,
    }


async def test_an_export_that_fails_leaves_no_file(client: Client, tmp_path: Path) -> None:
    said = await told(client, "export", tmp_path / "x", "--collection", "none")
    assert said.status == 1
    assert "'none'" in said.err
    assert names(tmp_path) == []
    said = await told(client, "export", tmp_path / "nowhere" / "x")
    assert said.status == 1
    assert "cannot write" in said.err


async def test_several_files_are_imported_and_what_fails_is_named(
    client: Client, tmp_path: Path
) -> None:
    good, bad, rows = tmp_path / "good", tmp_path / "bad", tmp_path / "rows.parquet"
    good.write_bytes(orjson.dumps({"id": "a", "text": "x", "vector": VECTOR}))
    bad.write_bytes(b'{"id": "b", "text": "y"}\n{"id": "c"}\n')
    pq.write_table(pa.Table.from_pylist([{"id": "d", "text": "z", "vector": VECTOR}]), rows)
    said = await told(client, "import", good, bad, rows)
    assert said.status == 1
    assert said.out.startswith("1 failed, 1 queued, 2 stored (")
    assert "by the job j" in said.out
    assert said.err.startswith(f"{bad}:2: text is required")
    report = (await told(client, "import", good, bad, "--json")).json
    assert report["counts"]["failed"] == 1
    assert report["failures"] == [
        {"file": str(bad), "line": 2, "id": "c", "error": "text is required, or chunks"}
    ]
    assert report["documents_per_s"] > 0


async def test_an_import_goes_by_on_conflict(client: Client, tmp_path: Path) -> None:
    await client.store(id="a", text="old")
    file = tmp_path / "x"
    file.write_bytes(orjson.dumps({"id": "a", "text": "x", "vector": VECTOR}))
    said = await told(client, "import", file, "--on-conflict", "skip")
    assert said.out.startswith("1 skipped")
    assert (await told(client, "import", file, "--on-conflict", "error")).status == 1
    assert (await told(client, "import", file)).out.startswith("1 replaced")


async def test_what_cannot_be_imported_is_one_line(client: Client, tmp_path: Path) -> None:
    file, broken = tmp_path / "x", tmp_path / "broken.gz"
    file.write_text("{}")
    broken.write_bytes(gzip.compress(orjson.dumps({"text": "x"}) * 1_000)[:-20])
    for arguments, words in (
        ((tmp_path / "none",), "there is no file"),
        ((file, "--collection", "none"), "'none'"),
        ((broken,), "broken.gz can't be read"),
    ):
        said = await told(client, "import", *arguments)
        assert said.status == 1
        assert words in said.err
        assert said.err.count("\n") == 1


async def test_an_import_reads_standard_input(running: Running) -> None:
    process = await start("import", "-", "--url", running.client.url)
    said = await end(process)  # it is empty there
    assert said.status == 1
    assert "no documents" in said.err


async def test_a_key_that_may_write_alone_imports(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(orjson.dumps({"text": "x", "vector": VECTOR}))
    async with serve(api_key="secret", headers={"Authorization": "Bearer secret"}) as running:
        body = {"name": "w", "scopes": ["write"]}
        key = (await running.client.post("/v1/keys", body)).ok(201)["key"]
        said = await told(running.client, "import", file, "--api-key", key)
        assert said.status == 0, said.err
        assert (await told(running.client, "export", "-", "--api-key", "wrong")).status == 1
