"""Search of 100,000 windows over SciFact: recall, filters, speed, and its peers beside it."""

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare_search import open_bare_search
from benchmarks.child import number_of_cores, run_child
from benchmarks.loading import import_records, record, wait_for_hnsw
from benchmarks.local import load_model
from benchmarks.report import Report
from benchmarks.scene import Scene
from benchmarks.search_filters import measure_filters, measure_recall
from benchmarks.search_peers import measure_peers
from benchmarks.search_speed import COMMON_WORD, measure_many_clients, measure_speed
from benchmarks.server import kept_directory, run_server
from benchmarks.window_filters import make_filters, tags_of_rows
from benchmarks.windows import COUNT, Windows, load_windows

COLLECTION = "windows"


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    count: int
    rounds: int
    peers: Sequence[str]
    """Who is measured beside memoryd."""
    reuse: Path | None
    """A data directory that stays, and may have the windows already."""


async def run(options: Options, json: Path | None) -> None:
    """Print the tables; save all figures where a path is given."""
    started = time.perf_counter()
    windows = await load_windows(options.count)
    report = _begin(options, windows)
    with kept_directory(options.reuse) as directory, run_child("benchmarks.clients") as clients:
        async with run_server(directory) as server:
            scene = Scene(server, COLLECTION, clients, windows, make_filters(windows))
            await _load(report, scene)
            await measure_recall(report, scene)
            await measure_filters(report, scene, options.rounds)
            async with open_bare_search(directory, COLLECTION) as bare:
                async with load_model() as model:
                    await measure_speed(report, scene, model, bare)
                await measure_many_clients(report, scene, options.rounds)
            await measure_peers(report, scene, directory, options.peers, options.rounds)
    report.note(f"\nmeasured in {time.perf_counter() - started:.0f} s")
    if json:
        report.save(json)


def _begin(options: Options, windows: Windows) -> Report:
    report = Report({"machine": platform.processor() or platform.machine()})
    report.facts |= {"cores": number_of_cores(), "rounds": options.rounds}
    report.note(f"{number_of_cores()} cores; {len(windows.texts):,} windows over SciFact")
    if len(windows.texts) < COUNT:
        report.note("a smoke run: these figures say nothing about 100,000 windows")
    return report


async def _load(report: Report, scene: Scene) -> None:
    """Import the windows, unless they are there, and wait for their index."""
    count = len(scene.windows.texts)
    collections = (await scene.server.request("GET", "/v1/collections"))["collections"]
    if any(each["name"] == COLLECTION and each["chunks"] == count for each in collections):
        report.note(f"the collection {COLLECTION} is there already")
        return
    await scene.server.request("POST", "/v1/collections", {"name": COLLECTION})
    import_s = await import_records(scene.server, COLLECTION, _records(scene))
    index_s = await wait_for_hnsw(scene.server, COLLECTION)
    report.section("load", {"seconds": ".1f", "rows/s": ",.0f"})
    report.row("import", {"seconds": import_s, "rows/s": count / import_s})
    report.row("until the index is there", {"seconds": index_s, "rows/s": count / index_s})


def _records(scene: Scene) -> Iterator[bytes]:
    """Yield a document for each window; every other one has a word in its title."""
    windows = scene.windows
    tags = tags_of_rows(scene.filters, len(windows.texts))
    for number, (text, vector) in enumerate(zip(windows.texts, windows.vectors, strict=True)):
        title = COMMON_WORD if number % 2 else ""
        yield record(number, text, vector, title=title, tags=tags[number])
