"""What a search is asked, and what it answers."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from memoryd.documents.boosts import Boost
from memoryd.documents.filters import Filter
from memoryd.documents.types import Document, StoredChunk
from memoryd.storage.dense import DensePlan, DenseSettings
from memoryd.vectors.types import Vector

Mode = Literal["hybrid", "dense", "lexical"]
ArmName = Literal["dense", "lexical"]
ScoreType = Literal["cosine", "bm25", "rrf", "relative", "rerank"]


@dataclass(frozen=True)
class TextQuery:
    """Look for what a text means, or for its words."""

    text: str


@dataclass(frozen=True)
class VectorQuery:
    """Look for what is near to a vector, (dimensions,)."""

    vector: Vector


@dataclass(frozen=True)
class DocumentQuery:
    """Look for what is like a stored document, which isn't found itself."""

    id: str


@dataclass(frozen=True)
class ChunkQuery:
    """Look for what is like a stored chunk, which isn't found itself."""

    id: str


QueryInput: TypeAlias = TextQuery | VectorQuery | DocumentQuery | ChunkQuery


@dataclass(frozen=True)
class Fusion:
    """Say how the rankings of dense and lexical search become one."""

    method: Literal["rrf", "relative"] = "rrf"
    k: float = 10.0
    """Of reciprocal rank fusion: the larger, the less the first ranks differ."""
    dense: float = 1.0
    lexical: float = 1.0


@dataclass(frozen=True)
class Rerank:
    """Have a cross-encoder score the first `candidates` results anew."""

    model: str | None = None
    candidates: int = 50


@dataclass(frozen=True)
class Mmr:
    """Choose among the first `candidates` results such as are unlike one another."""

    diversity: float
    candidates: int = 100


@dataclass(frozen=True)
class Contents:
    """Say what results carry that has to be looked up."""

    vector: bool = False
    highlight: bool = False
    context: int = 0
    """Chunks before and after each one."""


@dataclass(frozen=True)
class Query:
    """Say what to look for: one thing, or several whose rankings are fused."""

    inputs: tuple[QueryInput, ...]
    mode: Mode = "hybrid"
    limit: int = 10
    offset: int = 0
    wanted: Filter | None = None
    score_threshold: float | None = None
    """Least cosine; in lexical search least bm25, after reranking least score."""
    fusion: Fusion = Fusion()
    rerank: Rerank | None = None
    mmr: Mmr | None = None
    boosts: tuple[Boost, ...] = ()
    group_size: int | None = 3
    """Most chunks per document; None for one result per chunk."""
    instruction: str | None = None
    """What the query is for, where the model takes that."""
    contents: Contents = Contents()
    dense: DenseSettings = field(default_factory=DenseSettings)

    @property
    def end(self) -> int:
        """Where the page ends."""
        return self.offset + self.limit

    @property
    def is_chosen(self) -> bool:
        """Whether the page is chosen from candidates, rather than being the best that there are."""
        return self.rerank is not None or self.mmr is not None

    @property
    def texts(self) -> list[str]:
        """Those inputs that are texts."""
        return [each.text for each in self.inputs if isinstance(each, TextQuery)]


@dataclass(frozen=True)
class FoundChunk:
    """Be a chunk that was found; higher scores are better."""

    chunk: StoredChunk
    score: float
    cosine: float
    bm25: float | None = None
    """None where it has no word of the query."""
    ranks: dict[ArmName, int] = field(default_factory=dict)
    """Its rank in each arm that found it, from 1."""
    rerank_rank: int | None = None
    vector: Vector | None = None
    highlights: list[tuple[int, int]] | None = None
    """Start and end of the sentences that say most about the query, in its text."""
    before: list[StoredChunk] = field(default_factory=list)
    after: list[StoredChunk] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """Be a document that was found, its best chunks first."""

    document: Document
    score: float
    chunks: list[FoundChunk]


@dataclass(frozen=True)
class Plan:
    """Say how it was searched; None: that arm wasn't."""

    dense: DensePlan | None
    lexical: Literal["bm25"] | None


@dataclass(frozen=True)
class Results:
    """Be one page of what was found."""

    results: list[Result]
    next_offset: int | None
    score_type: ScoreType
    model: str
    """Whose vectors were searched."""
    plan: Plan
    timings_ms: dict[str, float]
    took_ms: float
