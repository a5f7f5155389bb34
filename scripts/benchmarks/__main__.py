"""Run `scripts/bench NAME`."""

import asyncio
from typing import Annotated

import typer

from benchmarks import collections, engine, scifact, sts

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=__doc__)


@app.command("scifact")
def run_scifact() -> None:
    """Ingest SciFact over HTTP, search it: nDCG@10, documents/s, tokens/s, p50 and p99."""
    asyncio.run(scifact.run())


@app.command("sts")
def run_sts() -> None:
    """Embed the STS Benchmark through /v1/embeddings: Spearman's rank correlation."""
    asyncio.run(sts.run())


@app.command("engine")
def run_engine(
    rounds: Annotated[int, typer.Option(help="How often each contender runs.")] = 5,
) -> None:
    """Compare bulk embedding with llama_cpp.Llama.create_embedding on the same texts."""
    asyncio.run(engine.run(rounds))


@app.command("collections")
def run_collections(
    count: Annotated[int, typer.Option(help="How many collections.")] = 2_000,
) -> None:
    """Make, search and delete many collections; restart over them. Also idle memory."""
    asyncio.run(collections.run(count))


app()
