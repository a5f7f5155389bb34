"""Evaluation sets, read from ../shared/data beside the project, or $MEMORYD_BENCH_DATA."""

import gzip
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SOURCES = {
    "scifact": "SciFact in the form of BEIR (test split), by the Allen Institute for AI",
    "stsb": "the STS Benchmark (sts-test.csv)",
}


def find(name: str, file: str) -> Path:
    """Return the path of a data set's file, or end with a message that says where it is from."""
    path = locate(name, file)
    if not path.is_file():
        sys.exit(f"{path} is missing: it is made from {_SOURCES[name]}")
    return path


def locate(name: str, file: str) -> Path:
    """Return where a data set's file belongs, whether it is there or not."""
    root = Path(__file__).parents[2]
    directory = Path(os.environ.get("MEMORYD_BENCH_DATA", root.parent / "shared" / "data"))
    return directory / name / file


@dataclass(frozen=True)
class Claim:
    """Be a query of SciFact with the grades of its relevant documents."""

    text: str
    relevant: dict[str, int]


def read_abstracts() -> list[dict[str, Any]]:
    """Return SciFact's documents: id, title, text."""
    with gzip.open(find("scifact", "corpus.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_claims() -> list[Claim]:
    """Return SciFact's queries."""
    with find("scifact", "queries.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Claim(row["text"], row["relevant"]) for row in rows]


def read_pairs() -> list[tuple[float, str, str]]:
    """Return the STS Benchmark's pairs: score 0-5 and two sentences."""
    with find("stsb", "sts-test.tsv").open(encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    return [(float(row[4]), row[5], row[6]) for row in rows]
