"""Search by words: exact BM25 over the chunks that have the rarer ones of a query's terms.

Candidates come from the GIN index on lexemes: chunks that have one of the rarest terms, as many of
these as it takes for three in a hundred of all chunks. Each is scored with all terms. Where that
finds too few, all that have any term are candidates.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise, repeat
from operator import attrgetter
from typing import Any

import asyncpg
import numpy as np
import numpy.typing as npt
from pgvector import SparseVector

from memoryd.documents.filters import Filter
from memoryd.documents.lexemes import Phrase, parse_query, prepare_text
from memoryd.documents.types import Collection
from memoryd.storage.arrays import read_doubles, read_integers
from memoryd.storage.database import Connection
from memoryd.storage.filters import compile_filter
from memoryd.storage.lexical_writing import CONFIGURATION, CONFIGURATIONS, dimension_of
from memoryd.storage.tables import (
    LEXEME_DIMENSIONS,
    collection_schema,
    lexical_table,
    term_change_table,
    term_table,
)
from memoryd.vectors.bm25 import (
    PACK_SIZE,
    inverse_document_frequency,
    pack_weights,
    score,
    unpack_frequencies,
)
from memoryd.vectors.rankings import EMPTY, Numbers, Ranking, Scores, rank

# Of 100,000 windows over SciFact this finds the same best ten as all candidates do, and 0.988 of
# the best hundred; 5 % finds 0.997 of these in one and a half times as long.
_CANDIDATE_SHARE = 0.03
_FEWEST_CANDIDATES = 2_000
_CANDIDATES_PER_RESULT = 10
# Of a query that is a whole document, the rarest terms count.
_MAX_TERMS = 500
_MAX_EXPANSIONS = 64
_MAX_CHANGES = 64
"""So many chunks whose terms aren't counted yet are counted by each query."""


@dataclass(frozen=True)
class Term:
    """Be what a query looks for: a lexeme, or all that begin with a prefix."""

    lexemes: tuple[str, ...]
    dimensions: tuple[int, ...]
    """Where each lexeme's frequency stands, counted from 1."""
    chunks: int
    """How many have it, as far as that is counted; of a prefix, the sum of its lexemes'."""
    count: int
    """How often the query has it."""
    prefix: str | None = None
    """Of a prefix, `lexemes` are its stem and the commonest ones that begin with it."""

    @property
    def tsquery(self) -> str:
        """What matches it."""
        if self.prefix is None:
            return _quote(self.lexemes[0])
        others = (_quote(each) for each in self.lexemes if not each.startswith(self.prefix))
        return " | ".join((f"{_quote(self.prefix)}:*", *others))

    def is_among(self, lexemes: frozenset[str]) -> bool:
        """Say whether one of `lexemes` matches it."""
        if not lexemes.isdisjoint(self.lexemes):
            return True
        return self.prefix is not None and any(map(str.startswith, lexemes, repeat(self.prefix)))


@dataclass(frozen=True)
class LexicalQuery:
    """Be an analyzed query, with the statistics of the collection at that time."""

    terms: tuple[Term, ...]
    """Rarest first."""
    phrases: tuple[str, ...]
    """As tsquery; a chunk must have each of them."""
    chunk_count: int
    mean_length: float
    uncounted: int
    """How many changes wait to be counted, as far as was looked; one says that counting is due."""

    @property
    def is_behind(self) -> bool:
        """Whether these were too many, so that the statistics are without them."""
        return self.uncounted > _MAX_CHANGES

    @cached_property
    def weights(self) -> list[float]:
        """Return the weight of each term."""
        return [
            term.count * inverse_document_frequency(self.chunk_count, term.chunks)
            for term in self.terms
        ]


async def analyze(connection: Connection, collection: Collection, text: str) -> LexicalQuery:
    """Return what a query looks for, stemmed in the collection's language; no text is wrong."""
    asked = parse_query(text)
    rows = await connection.fetch(
        _analysis(collection),
        collection.language,
        asked.words,
        [phrase.words for phrase in asked.phrases],
        asked.prefixes,
    )
    parts: defaultdict[tuple[str, int], list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        parts[row["kind"], row["part"]].append(row)
    [total] = parts["total", 0]
    is_behind = total["changes"] > _MAX_CHANGES
    phrases = [_tsquery(phrase, parts["phrase", at]) for at, phrase in enumerate(asked.phrases, 1)]
    return LexicalQuery(
        tuple(_choose(_terms(parts, asked.prefixes), is_behind=is_behind)),
        tuple(phrase for phrase in phrases if phrase),
        total["chunks"],
        total["length"] / max(total["chunks"], 1),
        total["changes"],
    )


def _analysis(collection: Collection) -> str:
    schema, generation = collection_schema(collection.number), collection.active.number
    terms = f"{schema}.{term_table(generation)}"
    return (
        f"WITH {CONFIGURATIONS}, stemmer AS MATERIALIZED (SELECT {CONFIGURATION} AS configuration"
        " FROM (SELECT $1::text AS language) AS l LEFT JOIN configurations USING (language)),"
        " changes AS MATERIALIZED (SELECT sign, length, tsvector_to_array(lexemes) AS lexemes"
        # By the index, which remembers what is gone: the table may be full of that.
        f" FROM {schema}.{term_change_table(generation)} ORDER BY id LIMIT {_MAX_CHANGES + 1:d}),"
        " uncounted AS MATERIALIZED (SELECT lexeme, sum(sign) AS chunks"
        " FROM changes, unnest(lexemes) AS lexeme"
        f" WHERE (SELECT count(*) FROM changes) <= {_MAX_CHANGES:d} GROUP BY lexeme),"
        " found AS (SELECT 'word' AS kind, 0 AS part, u.lexeme, u.positions"
        " FROM stemmer, unnest(to_tsvector(configuration, $2::text)) AS u"
        " UNION ALL SELECT 'phrase', part, u.lexeme, u.positions"
        " FROM stemmer, unnest($3::text[]) WITH ORDINALITY AS p (words, part),"
        " unnest(to_tsvector(configuration, words)) AS u"
        " UNION ALL SELECT 'prefix', part, e.lexeme, NULL"
        " FROM unnest($4::text[]) WITH ORDINALITY AS p (prefix, part),"
        f" LATERAL ({_expansion(terms)}) AS e)"
        " SELECT kind, part::int, lexeme, positions,"
        f" {dimension_of('lexeme')} AS dimension,"
        f" (coalesce((SELECT t.chunks FROM {terms} AS t WHERE t.lexeme = found.lexeme), 0)"
        " + coalesce(uncounted.chunks, 0))::bigint AS chunks, 0::bigint AS length, 0 AS changes"
        " FROM found LEFT JOIN uncounted USING (lexeme)"
        " UNION ALL SELECT 'total', 0, '', NULL, 0,"
        " coalesce(sum(chunks), 0)::bigint, coalesce(sum(length), 0)::bigint,"
        " (SELECT count(*) FROM changes)"
        f" FROM (SELECT chunks, length FROM {terms} WHERE lexeme = ''"
        " UNION ALL SELECT sign, sign * length FROM changes"
        f" WHERE (SELECT count(*) FROM changes) <= {_MAX_CHANGES:d}) AS t"
    )


def _expansion(terms: str) -> str:
    """Return SQL for the commonest lexemes that begin with `prefix`, and the one that it is."""
    last = "U&'\\+10FFFF'"  # in COLLATE "C" after any other character
    return (
        "SELECT lexeme FROM ("
        f"(SELECT lexeme, chunks FROM {terms} WHERE lexeme >= prefix"
        f" AND lexeme < prefix || {last} ORDER BY chunks DESC, lexeme LIMIT {_MAX_EXPANSIONS:d})"
        " UNION ALL SELECT lexeme, chunks FROM uncounted WHERE starts_with(lexeme, prefix)"
        " UNION ALL SELECT lexeme, 0 FROM stemmer, unnest(to_tsvector(configuration, prefix))"
        ") AS begun (lexeme, chunks) GROUP BY lexeme"
        f" ORDER BY sum(chunks) DESC, lexeme LIMIT {_MAX_EXPANSIONS:d}"
    )


def _terms(
    parts: Mapping[tuple[str, int], Sequence[asyncpg.Record]], prefixes: Sequence[str]
) -> Iterator[Term]:
    """Yield those of the words, and one of each prefix."""
    for row in parts["word", 0]:
        yield _term([row], len(row["positions"]))
    for at, prefix in enumerate(prefixes, 1):
        yield replace(_term(parts["prefix", at], 1), prefix=prefix)


def _term(rows: Sequence[asyncpg.Record], count: int) -> Term:
    return Term(
        tuple(row["lexeme"] for row in rows),
        tuple(row["dimension"] for row in rows),
        sum(max(row["chunks"], 0) for row in rows),
        count,
    )


def _choose(terms: Iterable[Term], *, is_behind: bool) -> list[Term]:
    """Return the rarest terms; those in no chunk are left out where that is known for certain."""
    rarest = sorted(terms, key=attrgetter("chunks", "lexemes"))
    known = [term for term in rarest if term.chunks][:_MAX_TERMS]
    unknown = [term for term in rarest if not term.chunks] if is_behind else []
    return unknown[: _MAX_TERMS - len(known)] + known


def _tsquery(phrase: Phrase, rows: Sequence[asyncpg.Record]) -> str:
    """Return a phrase as tsquery, empty where it has stop words only."""
    places = sorted((position, row["lexeme"]) for row in rows for position in row["positions"])
    words = [_quote(lexeme) for _, lexeme in places]
    if words and phrase.is_open:
        words[-1] += ":*"
    steps = [f" <{later[0] - sooner[0]}> " for sooner, later in pairwise(places)]
    return "".join(chain.from_iterable(zip(words, [*steps, ""], strict=False)))


def _quote(lexeme: str) -> str:
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


async def search_lexical(
    connection: Connection,
    collection: Collection,
    query: LexicalQuery,
    *,
    depth: int | None,
    wanted: Filter | None,
) -> Ranking:
    """Return the best `depth` chunks (None: all) that match, of documents that are `wanted`.

    There are never fewer than `depth` unless fewer match.
    """
    if not query.terms:
        return EMPTY
    rarest = _rarest(query, depth)
    found = await _search(connection, collection, query, rarest, depth, wanted)
    if len(rarest) < len(query.terms) and (depth is None or len(found) < depth):
        return await _search(connection, collection, query, query.terms, depth, wanted)
    return found


def _rarest(query: LexicalQuery, depth: int | None) -> Sequence[Term]:
    """Return the terms of which one makes a chunk a candidate."""
    if depth is None or query.phrases:  # a phrase's own words are terms: what has it has one
        return query.terms
    enough = max(
        _CANDIDATE_SHARE * query.chunk_count, _FEWEST_CANDIDATES, _CANDIDATES_PER_RESULT * depth
    )
    expected = np.cumsum([term.chunks for term in query.terms])
    return query.terms[: int(np.searchsorted(expected, enough)) + 1]


async def _search(
    connection: Connection,
    collection: Collection,
    query: LexicalQuery,
    candidates: Sequence[Term],
    depth: int | None,
    wanted: Filter | None,
) -> Ranking:
    matching = " & ".join(f"({each})" for each in query.phrases) or _any_of(candidates)
    arguments: list[Any] = [matching]
    condition = "lexemes @@ $1::tsquery"
    if wanted is not None:
        condition += (
            f" AND EXISTS (SELECT FROM {collection_schema(collection.number)}.documents"
            f" WHERE documents.id = l.document_id AND {compile_filter(wanted, arguments)})"
        )
    return rank(*await _score(connection, collection, query, condition, arguments), depth)


def _any_of(terms: Iterable[Term]) -> str:
    return " | ".join(term.tsquery for term in terms)


async def score_chunks(
    connection: Connection,
    collection: Collection,
    query: LexicalQuery,
    chunk_numbers: Sequence[int],
) -> Ranking:
    """Return those of the chunks that match, best first."""
    return await _score_those(connection, collection, query, "chunk_id", chunk_numbers)


async def score_documents(
    connection: Connection,
    collection: Collection,
    query: LexicalQuery,
    document_numbers: Sequence[int],
) -> Ranking:
    """Return all chunks of those documents that match, best first."""
    return await _score_those(connection, collection, query, "document_id", document_numbers)


async def _score_those(
    connection: Connection,
    collection: Collection,
    query: LexicalQuery,
    column: str,
    numbers: Sequence[int],
) -> Ranking:
    if not query.terms:
        return EMPTY
    arguments: list[Any] = [numbers]
    condition = f"{column} = ANY ($1::bigint[])"
    for phrase in query.phrases:
        arguments.append(phrase)
        condition += f" AND lexemes @@ ${len(arguments)}::tsquery"
    found = rank(*await _score(connection, collection, query, condition, arguments), None)
    return found.where(found.scores > 0)


async def _score(
    connection: Connection,
    collection: Collection,
    query: LexicalQuery,
    condition: str,
    arguments: Sequence[Any],
) -> tuple[Numbers, Numbers, Scores]:
    """Return numbers, documents' numbers and scores of the chunks that the condition is true of."""
    packs = _pack(query.terms)
    arguments = [*arguments]
    columns = ", ".join(f"{pack.column(arguments)} AS pack_{at}" for at, pack in enumerate(packs))
    sent = ", ".join(f"array_send(array_agg(pack_{at}))" for at in range(len(packs)))
    [row] = await connection.fetch(
        "SELECT array_send(array_agg(chunk_id)), array_send(array_agg(document_id)),"
        f" array_send(array_agg(length)), {sent} FROM (SELECT chunk_id, document_id,"
        f" length::bigint AS length, {columns}"
        f" FROM {_lexical(collection)} AS l WHERE {condition}) AS matching",
        *arguments,
    )
    chunks, documents, lengths = (read_integers(column) for column in row[:3])
    frequencies = np.empty((len(query.terms), len(chunks)))
    for pack, column in zip(packs, row[3:], strict=True):
        frequencies[pack.terms] = pack.unpack(read_doubles(column))
    return chunks, documents, score(frequencies, lengths, query.weights, query.mean_length)


def _lexical(collection: Collection) -> str:
    return f"{collection_schema(collection.number)}.{lexical_table(collection.active.number)}"


@dataclass(frozen=True)
class _Pack:
    """Be a vector whose inner product with a chunk's frequencies tells those of some terms."""

    vector: SparseVector
    terms: list[int]
    """Which of the query's."""
    prefix: str | None = None
    """A prefix, as tsquery, of which it tells the sum of what its commonest lexemes have."""

    def column(self, arguments: list[Any]) -> str:
        """Return SQL for what it tells, with its arguments."""
        arguments.append(self.vector)
        product = f"-(frequencies <#> ${len(arguments)})"
        if self.prefix is None:
            return product
        # What begins so and isn't among the commonest counts once.
        arguments.append(self.prefix)
        return f"greatest({product}, (lexemes @@ ${len(arguments)}::tsquery)::int)"

    def unpack(self, products: Scores) -> npt.NDArray[np.float64]:
        """Return the frequencies (terms, n) of the products (n,)."""
        if self.prefix is not None:
            return products[None, :]
        return unpack_frequencies(products, len(self.terms))


def _pack(terms: Sequence[Term]) -> list[_Pack]:
    words = [at for at, term in enumerate(terms) if term.prefix is None]
    packs = [
        _Pack(_vector(terms[at].dimensions[0] for at in part), part)
        for part in (words[at : at + PACK_SIZE] for at in range(0, len(words), PACK_SIZE))
    ]
    return packs + [
        _Pack(_sparse(dict.fromkeys(term.dimensions, 1)), [at], term.tsquery)
        for at, term in enumerate(terms)
        if term.prefix is not None
    ]


def _vector(dimensions: Iterable[int]) -> SparseVector:
    chosen = list(dimensions)
    return _sparse(dict(zip(chosen, pack_weights(len(chosen)), strict=True)))


def _sparse(weights: dict[int, int]) -> SparseVector:
    """Return a vector of weights by dimension, which pgvector's Python counts from 0."""
    return SparseVector({at - 1: weight for at, weight in weights.items()}, LEXEME_DIMENSIONS)


async def score_sentences(
    connection: Connection, collection: Collection, query: LexicalQuery, sentences: Sequence[str]
) -> list[float]:
    """Return for each sentence what the query's terms that it has weigh together."""
    rows = await connection.fetch(
        f"WITH {CONFIGURATIONS} SELECT tsvector_to_array(to_tsvector({CONFIGURATION}, words))"
        " AS lexemes FROM unnest($2::text[]) WITH ORDINALITY AS s (words, at)"
        " LEFT JOIN configurations ON language = $1 ORDER BY at",
        collection.language,
        await asyncio.to_thread(lambda: [prepare_text(each) for each in sentences]),
    )
    found = [frozenset(row["lexemes"]) for row in rows]
    return await asyncio.to_thread(_weigh, query, found)


def _weigh(query: LexicalQuery, found: Sequence[frozenset[str]]) -> list[float]:
    weighted = list(zip(query.terms, query.weights, strict=True))
    return [sum(weight for term, weight in weighted if term.is_among(lexemes)) for lexemes in found]
