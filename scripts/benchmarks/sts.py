"""Spearman's rank correlation on the STS Benchmark, through /v1/embeddings."""

import base64

import numpy as np
from scipy.stats import spearmanr

from benchmarks.data import read_pairs
from benchmarks.server import Running, data_directory, run_server

_BATCH = 1_000


async def run() -> None:
    """Print the figure."""
    pairs = read_pairs()
    with data_directory() as directory:
        async with run_server(directory) as server:
            first = await _embed(server, [pair[1] for pair in pairs])
            second = await _embed(server, [pair[2] for pair in pairs])
    cosines = (first * second).sum(axis=1)
    correlation = spearmanr(cosines, [pair[0] for pair in pairs]).statistic
    print(f"STS Benchmark: {len(pairs)} pairs, Spearman {correlation:.4f} (published 0.8203)")


async def _embed(server: Running, texts: list[str]) -> np.ndarray:
    rows = []
    for start in range(0, len(texts), _BATCH):
        body = {
            "model": "all-minilm",
            "input": texts[start : start + _BATCH],
            "encoding_format": "base64",
        }
        answer = await server.request("POST", "/v1/embeddings", body)
        rows += [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    return np.stack(rows)
