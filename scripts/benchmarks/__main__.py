"""Run `scripts/bench NAME`."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks import (
    collections,
    crash,
    embed,
    importing,
    ingest,
    peers,
    scale,
    scifact,
    search,
    stream,
    sts,
)
from benchmarks.contenders import CONTENDERS
from benchmarks.search_peers import STORE_PEERS
from benchmarks.windows import COUNT

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=__doc__)


Json = Annotated[Path | None, typer.Option(help="Where to save the figures.")]
Reuse = Annotated[
    Path | None,
    typer.Option(help="A data directory that is kept, and has what an earlier run stored in it."),
]


@app.command("scifact")
def run_scifact(
    reuse: Reuse = None,
    chunk_tokens: Annotated[
        str, typer.Option(help="Other sizes of chunks to compare, separated by commas.")
    ] = "",
    json: Json = None,
) -> None:
    """Ingest SciFact over HTTP and search it: nDCG@10 and recall of each mode, and its settings."""
    sizes = [int(size) for size in chunk_tokens.split(",") if size]
    asyncio.run(scifact.run(reuse, sizes, json))


@app.command("search")
def run_search(
    count: Annotated[int, typer.Option(min=1_000, help="How many windows.")] = COUNT,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = 6,
    beside: Annotated[str, typer.Option(help="Other stores, separated by commas.")] = ",".join(
        STORE_PEERS
    ),
    reuse: Reuse = None,
    json: Json = None,
) -> None:
    """Search windows of SciFact: recall, filters, speed, and other stores with the same vectors."""
    names = [name for name in beside.split(",") if name]
    if unknown := set(names) - set(STORE_PEERS):
        raise typer.BadParameter(f"{unknown.pop()} is none of {', '.join(STORE_PEERS)}")
    asyncio.run(search.run(search.Options(count, rounds, names, reuse), json))


@app.command("scale")
def run_scale(
    count: Annotated[int, typer.Option(help="How many vectors.")] = 1_000_000,
    reuse: Reuse = None,
    json: Json = None,
) -> None:
    """Import a million synthetic vectors: load, index, recall and time of searches."""
    asyncio.run(scale.run(count, reuse, json))


@app.command("sts")
def run_sts() -> None:
    """Embed the STS Benchmark through /v1/embeddings: Spearman's rank correlation."""
    asyncio.run(sts.run())


@app.command("engine")
def run_engine(
    rounds: Annotated[int, typer.Option(help="How often each contender runs.")] = 5,
) -> None:
    """Compare bulk embedding with llama_cpp.Llama.create_embedding on the same texts."""
    asyncio.run(embed.run_bulk(embed.Options(rounds, ("memoryd", "create_embedding"))))


@app.command("embed")
def run_embed(
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = 5,
    contenders: Annotated[str, typer.Option(help="Which ones, separated by commas.")] = ",".join(
        CONTENDERS
    ),
    llama_server: Annotated[
        str | None,
        typer.Option(envvar="MEMORYD_BENCH_LLAMA_SERVER", help="Path of the program llama-server."),
    ] = None,
    json: Json = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few texts, to see that it runs.")
    ] = False,
) -> None:
    """Compare the engine with its peers: bulk, over HTTP, and queries while bulk runs."""
    names = contenders.split(",")
    if unknown := set(names) - set(CONTENDERS):
        raise typer.BadParameter(f"{unknown.pop()} is none of {', '.join(CONTENDERS)}")
    options = embed.Options(1 if quick else rounds, names, llama_server, is_quick=quick)
    asyncio.run(embed.run(options, json))


@app.command("peers")
def install_peers(
    kind: Annotated[
        Literal["engines", "stores", "all"],
        typer.Argument(help="What `embed` compares with, what `search` does, or both."),
    ] = "all",
) -> None:
    """Install what memoryd is compared with into .bench: torch and ONNX Runtime, other stores."""
    for name, environment in (("engines", peers.ENGINES), ("stores", peers.STORES)):
        if kind in (name, "all"):
            environment.install()


@app.command("collections")
def run_collections(
    count: Annotated[int, typer.Option(help="How many collections.")] = 2_000,
) -> None:
    """Make, search and delete many collections; restart over them. Also idle memory."""
    asyncio.run(collections.run(count))


@app.command("import")
def run_import(
    count: Annotated[int, typer.Option(help="How many documents.")] = 100_000,
) -> None:
    """Import documents with vectors, again unchanged, export them: documents/s and memory."""
    asyncio.run(importing.run(count))


@app.command("ingest")
def run_ingest(
    count: Annotated[int, typer.Option(help="How many documents.")] = 5_183,
    json: Json = None,
) -> None:
    """Ingest SciFact over HTTP beside the bare engine, what chunking takes, and post it again."""
    asyncio.run(ingest.run(count, json))


@app.command("stream")
def run_stream(
    count: Annotated[int, typer.Option(help="How many documents.")] = 200_000,
    json: Json = None,
) -> None:
    """Send many short documents as NDJSON: memory and time per document, first and last tenth."""
    asyncio.run(stream.run(count, json))


@app.command("crash")
def run_crash(
    documents: Annotated[int, typer.Option(help="How many documents.")] = 5_000,
    kills: Annotated[int, typer.Option(help="How often a memoryd is killed.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the moments and of what is posted how.")] = 1,
) -> None:
    """Kill two memoryds again and again during an ingest that they share; nothing may be lost."""
    raise typer.Exit(crash.run(documents, kills, seed))


# As Ctrl-C does: servers and directories are cleaned up.
signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
app()
