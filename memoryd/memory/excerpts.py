"""What is shown around and within the chunks that were found: neighbors and highlights."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from memoryd.documents.highlights import choose, find_sentences
from memoryd.documents.types import Collection
from memoryd.memory.queries import FoundChunk, Result
from memoryd.memory.retrieval import Probe, Scope
from memoryd.memory.state import Memory
from memoryd.storage.chunks import find_neighbors
from memoryd.storage.lexical_search import score_sentences
from memoryd.vectors.similarity import shorten
from memoryd.vectors.types import Vectors

# Sentences of chunks that have no word of the query are embedded, which takes milliseconds each.
_MOST_EMBEDDED = 256
# A chunk that a client made may be a book, and a page may have a thousand chunks.
_MOST_OF_CHUNK = 200
_MOST_SENTENCES = 10_000

Span = tuple[int, int]


async def add_context(scope: Scope, results: Sequence[Result]) -> list[Result]:
    """Return the results with the chunks before and after each one that was found."""
    found = [each.chunk for result in results for each in result.chunks]
    neighbors = await find_neighbors(
        scope.connection, scope.collection, found, scope.query.contents.context
    )

    def surround(each: FoundChunk) -> FoundChunk:
        around = neighbors.get(each.chunk.number, [])
        position = each.chunk.position
        return replace(
            each,
            before=[chunk for chunk in around if chunk.position < position],
            after=[chunk for chunk in around if chunk.position > position],
        )

    return _with_chunks(results, surround)


async def highlight(
    memory: Memory, collection: Collection, probes: Sequence[Probe], results: Sequence[Result]
) -> list[Result]:
    """Return the results with the sentences of each chunk that say most about the query.

    Those are the ones with its rarest words; in a chunk that has none of them, the one that is
    nearest to it.
    """
    chunks = [each for result in results for each in result.chunks]
    if not chunks:
        return []
    spans = await asyncio.to_thread(_find_spans, [each.chunk.text for each in chunks])
    scores = await _score_words(memory, collection, probes, chunks, spans)
    chosen = {
        each.chunk.number: [places[at] for at in sorted(choose(of_chunk))]
        for each, places, of_chunk in zip(chunks, spans, scores, strict=True)
    }
    wordless = [at for at, each in enumerate(chunks) if not chosen[each.chunk.number]]
    for at, span in (
        await _find_nearest(memory, collection, probes, chunks, spans, wordless)
    ).items():
        chosen[chunks[at].chunk.number] = [span]
    return _with_chunks(results, lambda each: replace(each, highlights=chosen[each.chunk.number]))


def _find_spans(texts: Sequence[str]) -> list[list[Span]]:
    """Return where the first sentences of each text are, none once there are very many."""
    left = _MOST_SENTENCES
    spans = []
    for text in texts:
        spans.append(find_sentences(text)[: min(left, _MOST_OF_CHUNK)] if left else [])
        left -= len(spans[-1])
    return spans


async def _score_words(
    memory: Memory,
    collection: Collection,
    probes: Sequence[Probe],
    chunks: Sequence[FoundChunk],
    spans: Sequence[Sequence[Span]],
) -> list[list[float]]:
    """Return for each sentence of each chunk how much its words say about the query."""
    sentences = _cut(chunks, spans)
    sums = np.zeros(len(sentences))
    async with memory.database.connection() as connection:
        for probe in probes:
            if probe.words is not None:
                sums += await score_sentences(connection, collection, probe.words, sentences)
    ends = np.cumsum([len(places) for places in spans], dtype=int)
    return [part.tolist() for part in np.split(sums, ends[:-1])]


async def _find_nearest(
    memory: Memory,
    collection: Collection,
    probes: Sequence[Probe],
    chunks: Sequence[FoundChunk],
    spans: Sequence[Sequence[Span]],
    wanted: Sequence[int],
) -> dict[int, Span]:
    """Return for each of the chunks at `wanted` the sentence that is nearest to the query."""
    pairs = [(at, span) for at in wanted for span in spans[at]][:_MOST_EMBEDDED]
    if not pairs:
        return {}
    sentences = [chunks[at].chunk.text[slice(*span)] for at, span in pairs]
    cosines = (await _embed(memory, collection, sentences)) @ _stack(probes).T
    best: dict[int, tuple[float, Span]] = {}
    for (at, span), cosine in zip(pairs, cosines.max(axis=1).tolist(), strict=True):
        if at not in best or cosine > best[at][0]:
            best[at] = (cosine, span)
    return {at: span for at, (_, span) in best.items()}


async def _embed(memory: Memory, collection: Collection, sentences: Sequence[str]) -> Vectors:
    async with memory.engine.pinning(collection.model) as model:
        embeddings = await model.embed(sentences, prefix=model.prefix("document"))
    return shorten(embeddings.vectors, collection.dimensions)


def _stack(probes: Sequence[Probe]) -> Vectors:
    return np.stack([probe.vector for probe in probes])


def _cut(chunks: Sequence[FoundChunk], spans: Sequence[Sequence[Span]]) -> list[str]:
    return [
        each.chunk.text[slice(*span)]
        for each, places in zip(chunks, spans, strict=True)
        for span in places
    ]


def _with_chunks(
    results: Sequence[Result], change: Callable[[FoundChunk], FoundChunk]
) -> list[Result]:
    return [replace(result, chunks=list(map(change, result.chunks))) for result in results]
