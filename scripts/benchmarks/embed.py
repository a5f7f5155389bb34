"""memoryd's engine beside its peers: bulk, over HTTP, and queries while bulk runs."""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bulk import measure_bulk, open_contenders
from benchmarks.child import Child, number_of_cores, run_child
from benchmarks.contenders import Setup
from benchmarks.local import load_model, model_file
from benchmarks.queries import measure_queries
from benchmarks.report import Report
from benchmarks.server import Running, data_directory, run_server
from benchmarks.serving import measure_http, measure_lone_query
from benchmarks.texts import has_scifact

# Of a whole run's texts, for a smoke run.
_QUICK_SCALE = 0.02


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    rounds: int
    contenders: Sequence[str]
    llama_server: str | None = None
    is_quick: bool = False

    @property
    def scale(self) -> float:
        """Return which part of a whole run's texts are used."""
        return _QUICK_SCALE if self.is_quick else 1.0


async def run(options: Options, json_path: Path | None) -> None:
    """Print the tables; save all figures where a path is given."""
    started = time.perf_counter()
    report = _begin(options)
    async with load_model() as model:
        setup = Setup(model, model_file(), options.llama_server)
        await _run_bulk(report, setup, options)
        with data_directory() as directory, run_child("benchmarks.clients") as clients:
            async with run_server(directory) as server:
                await _run_served(report, setup, server, clients, options)
    report.note(f"\nmeasured in {time.perf_counter() - started:.0f} s")
    if json_path:
        report.save(json_path)


async def run_bulk(options: Options) -> None:
    """Print the tables of bulk embedding alone."""
    report = _begin(options)
    async with load_model() as model:
        await _run_bulk(report, Setup(model, model_file(), options.llama_server), options)


def _begin(options: Options) -> Report:
    report = Report({"machine": platform.processor() or platform.machine()})
    report.facts |= {"cores": number_of_cores(), "rounds": options.rounds}
    report.note(f"{number_of_cores()} cores; medians of alternating rounds: {options.rounds}")
    if options.is_quick:
        report.note("a smoke run: these figures say nothing about speed")
    if not has_scifact():
        report.note("SciFact is not there: texts are cut from memoryd's own words instead")
    return report


async def _run_bulk(report: Report, setup: Setup, options: Options) -> None:
    async with open_contenders(options.contenders, setup, report) as contenders:
        await measure_bulk(report, setup, contenders, options.rounds, options.scale)


async def _run_served(
    report: Report, setup: Setup, server: Running, clients: Child, options: Options
) -> None:
    rounds, scale = options.rounds, options.scale
    model = setup.model
    await measure_http(report, model, server.url, clients, rounds, scale)
    await measure_lone_query(report, model, setup.gguf, server.url, clients, rounds)
    await measure_queries(report, model, server, clients, rounds, scale)
