"""`memoryd search` as a shell runs it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web
from servers import Running, Serve
from shell import Said, on_a_terminal, run
from toys import JUDGE, TOY, ToyShelf

from memoryd.embeddings.engine import Engine

ESCAPE = "\x1b["
NOTHING = {
    "results": [],
    "score_type": "cosine",
    "model": "toy",
    "plan": {"dense": "exact", "lexical": None},
    "took_ms": 1.5,
    "timings_ms": {},
    "next_offset": None,
}


@asynccontextmanager
async def answering(answer: Any) -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """Answer every request by `answer`; yield the URL, and the paths and bodies that came."""
    asked: list[tuple[str, Any]] = []

    async def note(request: web.Request) -> web.Response:
        asked.append((request.raw_path, await request.json()))
        return web.json_response(answer)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", note)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def search(running: Running, *arguments: str) -> Said:
    return await run("search", *arguments, "--url", running.client.url)


async def found(running: Running, *arguments: str) -> list[str]:
    """Return the ids of the documents that are found, in order."""
    said = await search(running, *arguments, "--json")
    return [result["document"]["id"] for result in said.json["results"]]


# --- What is asked -------------------------------------------------------------------------------

PLAIN = {
    "query": "cat",
    "limit": 5,
    "offset": 0,
    "with": {"context": 0, "highlight": True},
    "explain": False,
}


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ((), {}),
        (("--limit", "7"), {"limit": 7}),
        (("-n", "7"), {"limit": 7}),
        (("--offset", "10"), {"offset": 10}),
        (("--mode", "lexical"), {"mode": "lexical"}),
        (("-m", "dense"), {"mode": "dense"}),
        (("--filter", "team=sec"), {"filter": {"field": "team", "any": ["sec"]}}),
        (
            ("-f", "year>=2023", "-f", '{"field": "x", "exists": true}'),
            {"filter": {"and": [{"field": "year", "gte": 2023}, {"field": "x", "exists": True}]}},
        ),
        (("--score-threshold", "-0.5"), {"score_threshold": -0.5}),
        (("--rerank", "judge"), {"rerank": {"model": "judge"}}),
        (("--exact",), {"params": {"exact": True}}),
        (("--context", "2"), {"with": {"context": 2, "highlight": True}}),
        (("--no-highlight",), {"with": {"context": 0, "highlight": False}}),
        (("--json",), {"with": {"context": 0, "highlight": False}}),
        (("--json", "--highlight"), {"with": {"context": 0, "highlight": True}}),
        (("--explain",), {"explain": True}),
    ],
)
async def test_each_option_is_asked_of_the_server(
    arguments: tuple[str, ...], changed: dict[str, Any]
) -> None:
    async with answering(NOTHING) as (url, asked):
        said = await run("search", "cat", *arguments, "--url", url)
    assert (said.status, said.err) == (0, "")
    assert asked == [("/v1/collections/default/search", {**PLAIN, **changed})]


async def test_collections_and_documents_are_named_in_the_request() -> None:
    async with answering(NOTHING) as (url, asked):
        await run("search", "cat", "-c", "a/b", "--url", url)
        await run("search", "cat", "-c", "a", "--collection", "b", "--url", url)
        await run("search", "--document", "handbook/ü", "--url", url)
    assert asked == [
        ("/v1/collections/a%2Fb/search", PLAIN),
        ("/v1/search", {"collections": ["a", "b"], **PLAIN}),
        ("/v1/collections/default/search", {**PLAIN, "query": {"document": "handbook/ü"}}),
    ]


@pytest.mark.parametrize("arguments", [(), ("cat", "--document", "a")])
async def test_what_to_look_for_is_said_once(arguments: tuple[str, ...]) -> None:
    said = await run("search", *arguments)
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("memoryd: say what to look for: some words, or --document")


async def test_wrong_arguments_are_told_before_anything_is_asked() -> None:
    async with answering(NOTHING) as (url, asked):
        for text in ("team", '{"field": '):
            said = await run("search", "cat", "--filter", text, "--url", url)
            assert (said.status, said.out) == (1, "")
            assert said.err.startswith("memoryd: --filter: ")
    assert asked == []


async def test_the_help_teaches_by_examples() -> None:
    said = await run("search", "--help")
    examples = re.findall(r"^ +memoryd search .*$", said.out, re.MULTILINE)
    assert len(examples) == 7
    assert any("--filter 'year>=2023'" in example for example in examples)


# --- What is shown -------------------------------------------------------------------------------

FILLING = "Nothing of this is new. " * 40
KEY = "To rotate a key, make a new one."
CHUNK = {
    "id": "c12",
    "index": 3,
    "page": 3,
    "headings": ["Security", "Keys"],
    "text": f"{FILLING}\n\n{KEY}\n{FILLING}",
    "score": 0.7131,
    "cosine": 0.61,
    "bm25": 12.5,
    "highlights": [{"start": len(FILLING) + 2, "end": len(FILLING) + 2 + len(KEY)}],
    "explain": {"dense": {"rank": 1}, "lexical": {"rank": 4}},
}
RESULT = {
    "document": {"id": "auth.md", "title": "Au\x1b[31mth"},
    "score": 0.7131,
    "chunks": [CHUNK],
}
ANSWER = {
    **NOTHING,
    "results": [RESULT],
    "score_type": "rrf",
    "plan": {"dense": "hnsw", "lexical": "bm25"},
    "timings_ms": {"embed": 3.25, "dense": 1.0},
    "next_offset": 11,
}


async def test_a_result_is_its_title_its_id_its_score_and_lines_of_its_best_chunk() -> None:
    async with answering(ANSWER) as (url, _asked):
        said = await run("search", "keys", "--offset", "10", "--url", url)
    heading, where, *lines, empty, more = said.out.splitlines()
    assert heading == "11. Au�[31mth  auth.md  0.713"
    assert where == "   page 3 > Security > Keys"
    assert len(lines) == 4
    assert KEY in " ".join(line.strip() for line in lines)
    assert lines[0].startswith("   …")
    assert lines[-1].endswith("…")
    assert all(len(line) <= 80 and not line.endswith(" ") for line in lines)
    assert (empty, more) == ("", "more: --offset 11")
    assert "\x1b" not in said.out


async def test_on_a_terminal_highlights_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    async with answering(ANSWER) as (url, _asked):
        colored = await on_a_terminal("search", "keys", "--url", url)
        monkeypatch.setenv("NO_COLOR", "1")
        bold = await on_a_terminal("search", "keys", "--url", url)
    assert f"{ESCAPE}1;33m{KEY}{ESCAPE}0m" in colored.out.replace("\r\n", " ")
    assert f"{ESCAPE}1m{KEY}{ESCAPE}0m" in bold.out.replace("\r\n", " ")
    assert "33m" not in bold.out
    assert f"{ESCAPE}31m" not in colored.out  # the title's own


async def test_without_highlights_a_chunk_is_shown_from_its_beginning() -> None:
    chunk = {**CHUNK, "text": f"First.\n{FILLING}", "page": None, "headings": []}
    del chunk["highlights"]
    answer = {**ANSWER, "results": [{**RESULT, "chunks": [chunk]}]}
    async with answering(answer) as (url, _asked):
        said = await run("search", "keys", "--url", url)
    _heading, first, *others = said.out.splitlines()[:5]
    assert first.startswith("   First. Nothing of this")
    assert others[-1].endswith("…")


async def test_an_explanation_has_the_plan_ranks_and_milliseconds() -> None:
    chunks = [CHUNK, {**CHUNK, "id": "c13", "explain": {"rerank": {"rank": 2}}}]
    del chunks[1]["bm25"]
    answer = {**ANSWER, "results": [{**RESULT, "chunks": chunks}]}
    async with answering(answer) as (url, _asked):
        said = await run("search", "keys", "--explain", "--url", url)
    assert said.out.splitlines()[-8:] == [
        "plan: dense hnsw, lexical bm25; scores: rrf; model: toy",
        "#\tdocument\tchunk\tscore\tcosine\tbm25\tdense\tlexical\trerank",
        "1\tauth.md\tc12\t0.713\t0.610\t12.500\t1\t4\t-",
        "1\tauth.md\tc13\t0.713\t0.610\t-\t-\t-\t2",
        "step\tms",
        "embed\t3.2",
        "dense\t1.0",
        "all\t1.5",
    ]


async def test_json_is_the_answer_as_it_is() -> None:
    async with answering(ANSWER) as (url, _asked):
        said = await run("search", "keys", "--json", "--url", url)
    assert said.json == orjson.loads(orjson.dumps(ANSWER))


# --- With a server -------------------------------------------------------------------------------


async def test_what_was_stored_is_found_in_every_way(running: Running) -> None:
    await running.client.store(
        id="pets", title="Pets", text="cat dog", tags=["home"], metadata={"year": 2020}
    )
    await running.client.store(id="fruit", text="apple pear", metadata={"year": 2025})
    assert await found(running, "cat", "-n", "1") == ["pets"]
    assert await found(running, "apple", "--mode", "lexical") == ["fruit"]
    assert await found(running, "apple", "--filter", "year<2023") == ["pets"]
    assert await found(running, "apple", "--filter", "tags=home") == ["pets"]
    assert await found(running, "apple", "-f", "tags!=home", "-f", "year=2025") == ["fruit"]
    assert await found(running, "apple", "-m", "dense", "--score-threshold", "0.5") == ["fruit"]
    assert await found(running, "cat", "--offset", "1") == ["fruit"]
    assert await found(running, "--document", "pets") == ["fruit"]
    assert await found(running, "cat", "--exact", "-n", "1") == ["pets"]
    said = await search(running, "zebra", "--mode", "lexical")
    assert (said.status, said.out) == (0, "nothing found\n")


async def test_what_is_printed_of_a_search(running: Running) -> None:
    words = " ".join(f"apple {number}." for number in range(300))
    await running.client.store(id="long", title="Long", text=f"{words} A cat sat there. {words}")
    said = await search(running, "cat", "--explain", "--context", "1")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("1. Long  long  ")
    assert "A cat sat there." in " ".join(said.out.split())
    assert "\nplan: dense exact, lexical bm25; scores: " in said.out
    [row] = re.findall(r"^1\tlong\tc\d+\t.*\t1\t1\t-$", said.out, re.MULTILINE)
    assert row
    steps = said.out[said.out.index("step\tms\n") :].splitlines()
    assert {"embed", "dense", "lexical", "all"} <= {step.split("\t")[0] for step in steps}


async def test_neighbors_are_shown_around_a_chunk(running: Running) -> None:
    chunks = [{"text": text} for text in ("apple", "pear", "cat", "plum", "lemon")]
    await running.client.store(id="a", chunks=chunks)
    said = await search(running, "cat", "--context", "1", "-m", "dense")
    assert [line.strip() for line in said.out.splitlines()[1:4]] == ["pear", "cat", "plum"]


async def test_several_collections_are_searched_together(running: Running) -> None:
    (await running.client.post("/v1/collections", {"name": "notes"})).ok(201)
    await running.client.store(id="a", text="cat")
    await running.client.store("notes", id="b", text="cat dog")
    said = await search(running, "cat", "-c", "default", "-c", "notes")
    assert said.status == 0
    assert re.search(r"^\d\. a  [\d.]+  default$", said.out, re.MULTILINE)
    assert re.search(r"^\d\. b  [\d.]+  notes$", said.out, re.MULTILINE)
    said = await search(running, "cat", "-c", "default", "-c", "notes", "--explain")
    for name in ("default", "notes"):
        assert f"\n{name} plan: dense exact, lexical bm25; scores: rrf; model: toy\n" in said.out
        assert re.search(rf"^{name} embed\t[\d.]+$", said.out, re.MULTILINE)


async def test_a_reranker_orders_what_was_found(serve: Serve) -> None:
    shelf = ToyShelf(TOY, JUDGE)
    shelf.poolings[JUDGE] = "rank"
    async with Engine(shelf) as engine, serve(engine) as running:
        await running.client.store(id="once", text="cat")
        await running.client.store(id="thrice", text="cat cat cat dog dog dog")
        arguments = ("cat", "-m", "dense")
        assert await found(running, *arguments) == ["once", "thrice"]
        assert await found(running, *arguments, "--rerank", JUDGE) == ["thrice", "once"]
        said = await search(running, *arguments, "--rerank", JUDGE, "--explain")
    assert re.search(r"^1\tthrice\t.*\t1$", said.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("cat", "--mode", "fuzzy"), "mode: "),
        (("cat", "-n", "0"), "limit: "),
        (("cat", "--offset", "-1"), "offset: "),
        (("cat", "--context", "11"), "with.context: "),
        (("cat", "-c", "none"), "there is no collection 'none'"),
        (("cat", "--filter", '{"field": "x", "like": 1}'), "filter.like"),
        (("cat", "--rerank", "nobody"), "model 'nobody' not found"),
        (("--document", "nobody"), "query.document: there is no stored document 'nobody'"),
        ((" ",), "query: "),
    ],
)
async def test_what_the_server_refuses_is_told_in_one_line(
    running: Running, arguments: tuple[str, ...], told: str
) -> None:
    await running.client.store(id="a", text="cat")
    said = await search(running, *arguments)
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith(f"memoryd: {told}")
    assert said.err.count("\n") == 1
