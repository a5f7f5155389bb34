import io
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import Running
from toys import DIMENSIONS
from transfers import base64_of, export, import_, parsed, path, rows_of, send, unit
from wire import Client

from memoryd.parsers import parquet


def parquet_of(
    rows: list[dict[str, Any]], schema: pa.Schema | None = None, **options: Any
) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), file, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), DIMENSIONS)])
async def test_rows_of_parquet_are_imported(running: Running, kind: pa.DataType) -> None:
    client = running.client
    rows = [
        {
            "id": f"row-{number}",
            "title": f"Title {number}",
            "text": f"Text {number} 😀",
            "metadata": orjson.dumps({"number": number}).decode(),
            "tags": ["x", str(number)],
            "vector": unit(number % DIMENSIONS),
        }
        for number in range(1_200)
    ]
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("id", "title", "text", "metadata")),
            ("tags", pa.list_(pa.string())),
            ("vector", kind),
        ]
    )
    data = parquet_of(rows, schema, row_group_size=500)
    told = (await send(client, data)).ok()
    assert (told["counts"], told["failures"]) == ({"stored": 1_200}, [])
    shown = (await client.get(path("documents/row-1001"))).ok()
    assert shown["metadata"] == {"number": 1001}
    assert shown["tags"] == ["x", "1001"]
    assert (shown["title"], shown["text"]) == ("Title 1001", "Text 1001 😀")
    stored = await rows_of(running, 1)
    assert orjson.loads(stored[1001]["embedding"]) == unit(1001 % DIMENSIONS)
    assert (await send(client, data)).ok()["counts"] == {"unchanged": 1_200}


async def test_other_columns_of_parquet_are_as_fields_of_lines(client: Client) -> None:
    time = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    row = {
        "text": "One cat.",
        "metadata": {"year": 2025},
        "mime_type": "text/x",
        "language": "german",
        "created_at": time,
        "expires_at": time.replace(year=2999),
        "chunks": [{"start_char": 0, "end_char": 8, "vector": unit(3)}],
        "sections": [{"start_char": 0, "end_char": 8, "headings": ["H"], "page": 2}],
        "on_conflict": "skip",
    }
    data = parquet_of([row])
    assert (await send(client, data)).ok()["counts"] == {"stored": 1}
    stored = parsed(await export(client))[1]
    for name in ("text", "metadata", "mime_type", "language", "sections"):
        assert stored[name] == row[name], name
    assert stored["created_at"] == "2001-02-03T04:05:06Z"
    assert stored["expires_at"] == "2999-02-03T04:05:06Z"
    assert stored["chunks"][0]["vector"] == base64_of(unit(3))
    assert (await send(client, data)).ok()["counts"] == {"skipped": 1}


async def test_a_wrong_row_of_parquet_fails_alone(client: Client) -> None:
    rows = [
        {"id": "a", "text": "x", "vector": unit(1)},
        {"id": "b", "text": "x", "vector": [1.0]},
        {"id": "c", "text": None, "vector": None},
        {"id": "d", "text": "x", "vector": None},
    ]
    told = await import_(client, parquet_of(rows))
    assert told["counts"] == {"stored": 1, "failed": 2, "queued": 1}
    assert [(failure["line"], failure["id"]) for failure in told["failures"]] == [
        (2, "b"),
        (3, "c"),
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PAR1", "broken"),
        (b"PAR1" + bytes(1_000), "broken"),
        (parquet_of([{"text": "x", "emb": [1.0]}]), "emb"),
        (parquet_of([{"text": "x", "vector": "y"}]), "lists of numbers"),
        (parquet_of([{"text": "x", "vector": ["y"]}]), "lists of numbers"),
        (parquet_of([{"text": b"\xff"}]), "row"),
        (parquet_of([{"text": "word " * 10_000}])[:-400] + bytes(400), "broken"),
    ],
)
async def test_a_broken_parquet_file_is_refused_with_a_reason(
    shared_client: Client, data: bytes, words: str
) -> None:
    error = (await send(shared_client, data)).refused(400, "invalid_value")
    assert "Parquet" in error["message"]
    assert words in error["message"]


async def test_without_pyarrow_parquet_is_refused_saying_how_to_have_it(
    shared_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "find_spec", lambda _: None)
    error = (await send(shared_client, parquet_of([{"text": "x"}]))).refused(400)
    assert "pip install 'memoryd[parquet]'" in error["message"]
