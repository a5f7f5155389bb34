"""What searches take: bodies and a query string, and what they ask of memoryd."""

import re
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from memoryd.api import limits
from memoryd.api.bodies import ALTERNATIVE, Body
from memoryd.api.fields import CollectionName, DocumentId, NotBlank
from memoryd.api.filters import FilterObject, load_filter, read_filter
from memoryd.api.queries import Query as QueryString
from memoryd.api.queries import Whole
from memoryd.documents.boosts import Boost, parse_boosts
from memoryd.errors import InvalidInputError, TooLargeError
from memoryd.memory.queries import (
    ChunkQuery,
    Contents,
    DocumentQuery,
    Fusion,
    Mmr,
    Mode,
    Query,
    QueryInput,
    Rerank,
    TextQuery,
    VectorQuery,
)
from memoryd.storage.dense import DenseSettings
from memoryd.vectors.types import Vector

# As JSON writes numbers.
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)

Finite = Annotated[float, Field(allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=limits.FUSION_WEIGHT)]
Candidates = Annotated[int, Field(ge=1, le=limits.CANDIDATES)]

# Checked by `parse_boosts`, which names the place of what is wrong.
BoostObjects = Annotated[Any, WithJsonSchema({"type": "array", "items": {"type": "object"}})]


class VectorBody(Body):
    """A vector to search with."""

    vector: list[float] = Field(min_length=1, max_length=limits.VECTOR_DIMENSIONS)


class StoredDocumentBody(Body):
    """A stored document to search with: its id. It isn't found itself."""

    document: DocumentId


class StoredChunkBody(Body):
    """A stored chunk to search with: its id. It isn't found itself."""

    chunk: str = Field(min_length=1, max_length=limits.ID_CHARS)


def _kind_of_query(value: Any) -> str:
    if isinstance(value, list):
        return f"{ALTERNATIVE}texts"
    if not isinstance(value, dict):
        return f"{ALTERNATIVE}text"
    kind = next((key for key in ("document", "chunk") if key in value), "vector")
    return f"{ALTERNATIVE}{kind}"


class WeightsBody(Body):
    """How much each ranking counts."""

    dense: Weight = 1.0
    lexical: Weight = 1.0


class FusionBody(Body):
    """How rankings become one; where there is but one, nothing is done."""

    method: Literal["rrf", "relative"] = "rrf"
    k: float = Field(
        default=Fusion.k,
        ge=limits.LEAST_FUSION_K,
        le=limits.FUSION_K,
        description="Of rrf: weight / (k + rank) are summed.",
    )
    weights: WeightsBody = Field(default_factory=WeightsBody)


class RerankBody(Body):
    """A cross-encoder scores anew what was found first."""

    model: NotBlank | None = Field(
        default=None, description="Null: the only reranker that is here."
    )
    candidates: Candidates = Rerank.candidates


class MmrBody(Body):
    """Results are chosen that are unlike one another (maximal marginal relevance)."""

    diversity: float = Field(default=0.3, ge=0, le=1, description="0: by relevance alone.")
    candidates: Candidates = Mmr.candidates


class WithBody(Body):
    """What results carry beside ids and scores."""

    text: bool = True
    metadata: bool = Field(default=True, description="Metadata and tags of documents.")
    vector: bool = False
    highlight: bool = Field(
        default=False, description="Where in a chunk the sentences are that fit best."
    )
    context: int = Field(
        default=0, ge=0, le=limits.CONTEXT, description="Chunks before, and after, each one."
    )


class ParamsBody(Body):
    """How thoroughly vectors are searched."""

    exact: bool = Field(default=False, description="Whether all are compared, as without an index.")
    ef_search: int | None = Field(
        default=None,
        ge=1,
        le=limits.EF_SEARCH,
        description="Candidates of the index; null: enough.",
    )


class SearchBody(Body):
    """What to look for."""

    query: Annotated[
        Annotated[NotBlank, Tag(f"{ALTERNATIVE}text")]
        | Annotated[
            list[NotBlank],
            Field(min_length=1, max_length=limits.QUERIES),
            Tag(f"{ALTERNATIVE}texts"),
        ]
        | Annotated[VectorBody, Tag(f"{ALTERNATIVE}vector")]
        | Annotated[StoredDocumentBody, Tag(f"{ALTERNATIVE}document")]
        | Annotated[StoredChunkBody, Tag(f"{ALTERNATIVE}chunk")],
        Discriminator(_kind_of_query),
    ]
    mode: Mode = "hybrid"
    limit: int = Field(10, ge=1, le=limits.SEARCH_LIMIT)
    offset: int = Field(0, ge=0)
    filter: FilterObject | None = Field(None, description="Which documents may be found.")
    score_threshold: Finite | None = Field(
        None, description="The least cosine; in lexical search bm25; after reranking its score."
    )
    fusion: FusionBody = Field(default_factory=FusionBody)
    rerank: RerankBody | None = None
    mmr: MmrBody | None = None
    boost: BoostObjects | None = Field(None, description="What raises or lowers scores.")
    group_by: Literal["document"] | None = "document"
    group_size: int = Field(3, ge=1, le=limits.GROUP_SIZE, description="Most chunks per document.")
    instruction: NotBlank | None = Field(
        None, description="What the query is for, where the model takes that."
    )
    with_: WithBody = Field(default_factory=WithBody, alias="with")
    params: ParamsBody = Field(default_factory=ParamsBody)
    explain: bool = False

    def to_query(self, at: str = "") -> Query:
        """Return what it asks; `at` stands before the names of fields in errors.

        Raises InvalidInputError where fields don't go together, TooLargeError over a limit, and
        what `parse_filter` and `parse_boosts` raise.
        """
        _check_depth(self, at)
        _check_kind(self, at)
        _check_scores(self, at)
        return Query(
            _inputs(self, at),
            mode=self.mode,
            limit=self.limit,
            offset=self.offset,
            wanted=read_filter(self.filter, f"{at}filter"),
            score_threshold=self.score_threshold,
            fusion=_fusion(self),
            rerank=Rerank(**self.rerank.model_dump()) if self.rerank else None,
            mmr=Mmr(**self.mmr.model_dump()) if self.mmr else None,
            boosts=_boosts(self, at),
            group_size=self.group_size if self.group_by else None,
            instruction=self.instruction,
            contents=Contents(self.with_.vector, self.with_.highlight, self.with_.context),
            dense=DenseSettings(self.params.exact, self.params.ef_search),
        )


class BatchBody(Body):
    """Searches that are answered together."""

    searches: list[SearchBody] = Field(min_length=1, max_length=limits.SEARCHES)


class SeveralBody(SearchBody):
    """What to look for, and in which collections."""

    collections: list[CollectionName] = Field(
        min_length=1,
        max_length=limits.SEARCH_COLLECTIONS,
        description="Their names, or other names of theirs; each collection once.",
    )


def _check_number(value: Any) -> Any:
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError(f"{value!r} is not a number")
    return value


class SearchQuery(QueryString):
    """What to look for, in a query string."""

    q: NotBlank = Field(description="What to look for.")
    limit: Whole = Field(10, ge=1, le=limits.SEARCH_LIMIT)
    offset: Whole = Field(0, ge=0, le=limits.SEARCH_DEPTH)
    mode: Mode = "hybrid"
    filter: str | None = Field(None, description="Which documents may be found, as JSON.")
    score_threshold: Annotated[Finite, BeforeValidator(_check_number)] | None = Field(
        None, description="The least cosine; in lexical search bm25."
    )

    def fields(self) -> dict[str, Any]:
        """Return the body that asks the same; raise InvalidInputError for what is no JSON."""
        fields = self.model_dump(exclude={"q", "filter"})
        return fields | {"query": self.q, "filter": load_filter(self.filter)}


# --- What goes together ----------------------------------------------------------------------


def _check_depth(body: SearchBody, at: str) -> None:
    end = body.offset + body.limit
    if end > limits.SEARCH_DEPTH:
        raise TooLargeError(
            f"{at}offset: offset + limit can be {limits.SEARCH_DEPTH} at most", f"{at}offset"
        )
    for name, chosen in (("rerank", body.rerank), ("mmr", body.mmr)):
        if chosen is not None and end > chosen.candidates:
            raise _fault(
                f"{at}{name}.candidates",
                f"offset + limit = {end} are more than the {chosen.candidates} candidates, which"
                " are all that there is to choose from: ask for more",
            )


def _check_kind(body: SearchBody, at: str) -> None:
    """Raise InvalidInputError for what goes with texts alone."""
    if isinstance(body.query, str | list):
        return
    if body.mode == "lexical":
        raise _fault(f"{at}mode", "lexical search needs a query that is text")
    if body.instruction is not None:
        raise _fault(f"{at}instruction", "goes with a query that is text")
    if body.rerank is not None:
        raise _fault(f"{at}rerank", "goes with a query that is text")


def _check_scores(body: SearchBody, at: str) -> None:
    threshold = body.score_threshold
    is_of_cosines = body.mode != "lexical" and body.rerank is None
    if threshold is not None and is_of_cosines and not -1 <= threshold <= 1:
        raise _fault(f"{at}score_threshold", "is a cosine, between -1 and 1")
    fusion = body.fusion
    if fusion.method == "relative" and "k" in fusion.model_fields_set:
        raise _fault(f"{at}fusion.k", "goes with the method rrf")
    if not fusion.weights.dense and not fusion.weights.lexical:
        raise _fault(f"{at}fusion.weights", "can't be 0 both")
    if body.group_by is None and "group_size" in body.model_fields_set:
        raise _fault(f"{at}group_size", "goes with group_by: document")


def _fault(param: str, message: str) -> InvalidInputError:
    return InvalidInputError(f"{param}: {message}", param)


# --- What it asks ----------------------------------------------------------------------------


def _inputs(body: SearchBody, at: str) -> tuple[QueryInput, ...]:
    match body.query:
        case str(text):
            return (TextQuery(text),)
        case VectorBody(vector=numbers):
            return (VectorQuery(_unit(numbers, f"{at}query.vector")),)
        case StoredDocumentBody(document=id_):
            return (DocumentQuery(id_),)
        case StoredChunkBody(chunk=id_):
            return (ChunkQuery(id_),)
    return tuple(map(TextQuery, body.query))


def _unit(numbers: list[float], param: str) -> Vector:
    vector = np.asarray(numbers, dtype=np.float64)
    if not np.isfinite(vector).all() or not vector.any():
        raise _fault(param, "must be finite and not zero")
    # A cosine doesn't ask for the length, but a column of half precision has little range.
    vector /= np.abs(vector).max()
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def _fusion(body: SearchBody) -> Fusion:
    if body.mode != "hybrid":
        return Fusion(body.fusion.method, body.fusion.k)  # its rankings are all of one kind
    weights = body.fusion.weights
    return Fusion(body.fusion.method, body.fusion.k, weights.dense, weights.lexical)


def _boosts(body: SearchBody, at: str) -> tuple[Boost, ...]:
    return () if body.boost is None else parse_boosts(body.boost, at=f"{at}boost")
