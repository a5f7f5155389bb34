"""OpenAI's search of vector stores (platform.openai.com/docs/api-reference/vector-stores/search).

A vector store is the collection of that name, a file one of its documents.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from aiohttp import web
from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema
from typing_extensions import TypedDict

from memoryd.api.bodies import ALTERNATIVE, PeerBody, read_peer_body
from memoryd.api.collections import find
from memoryd.api.errors import json_response
from memoryd.api.fields import NotBlank
from memoryd.api.state import MEMORY
from memoryd.documents.filters import parse_filter
from memoryd.memory.queries import Result
from memoryd.memory.search import search_chunks

_MAX_QUERIES = 100
_USUAL_RESULTS = 10
_KINDS_OF_FILTERS = {
    **dict.fromkeys(("eq", "ne"), "equality"),
    **dict.fromkeys(("gt", "gte", "lt", "lte"), "order"),
    **dict.fromkeys(("in", "nin"), "list"),
    **dict.fromkeys(("and", "or"), "compound"),
}


def _check_scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("must be a text, a number, true or false")  # noqa: TRY004 - pydantic's
    return value


def _check_ordered(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a text or a number")  # noqa: TRY004 - pydantic's
    return value


AttributeKey = Annotated[str, Field(min_length=1)]
# As they are: a number that becomes a float, as unions make them, may be another one.
Scalar = Annotated[
    Any,
    AfterValidator(_check_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Ordered = Annotated[
    Any, AfterValidator(_check_ordered), WithJsonSchema({"type": ["string", "number"]})
]


def _kind_of_query(value: Any) -> str:
    return f"{ALTERNATIVE}text" if isinstance(value, str) else f"{ALTERNATIVE}texts"


class RankingOptions(PeerBody):
    """How results are ranked: by their cosine, whichever of OpenAI's rankers is named."""

    ranker: Literal["none", "auto", "default-2024-11-15"] | None = None
    score_threshold: Annotated[float | None, Field(ge=0, le=1)] = None


class EqualityFilter(PeerBody):
    """What an attribute is, or isn't."""

    type: Literal["eq", "ne"]
    key: AttributeKey
    value: Scalar


class OrderFilter(PeerBody):
    """How an attribute compares with a number, or with a text by code point."""

    type: Literal["gt", "gte", "lt", "lte"]
    key: AttributeKey
    value: Ordered


class ListFilter(PeerBody):
    """Which values an attribute has one of, or none of."""

    type: Literal["in", "nin"]
    key: AttributeKey
    value: list[Scalar]


class CompoundFilter(PeerBody):
    """Filters that must hold all together, or of which one must."""

    type: Literal["and", "or"]
    filters: list["AttributeFilter"] = Field(min_length=1)


def _kind_of_filter(value: Any) -> str:
    type_ = value.get("type") if isinstance(value, dict) else None
    kind = _KINDS_OF_FILTERS.get(type_, "equality") if isinstance(type_, str) else "equality"
    return f"{ALTERNATIVE}{kind}"


AttributeFilter = Annotated[
    Annotated[EqualityFilter, Tag(f"{ALTERNATIVE}equality")]
    | Annotated[OrderFilter, Tag(f"{ALTERNATIVE}order")]
    | Annotated[ListFilter, Tag(f"{ALTERNATIVE}list")]
    | Annotated[CompoundFilter, Tag(f"{ALTERNATIVE}compound")],
    Discriminator(_kind_of_filter),
]
"""OpenAI's filters; the keys of attributes are those of the metadata, dots and all."""


class SearchBody(PeerBody):
    """What /v1/vector_stores/{id}/search takes; other fields are ignored, null is absent."""

    query: Annotated[
        Annotated[NotBlank, Tag(f"{ALTERNATIVE}text")]
        | Annotated[
            list[NotBlank],
            Field(min_length=1, max_length=_MAX_QUERIES),
            Tag(f"{ALTERNATIVE}texts"),
        ],
        Discriminator(_kind_of_query),
    ]
    max_num_results: Annotated[int | None, Field(ge=1, le=50)] = None
    ranking_options: RankingOptions | None = None
    filters: AttributeFilter | None = None
    rewrite_query: bool | None = None
    """Taken, and not done: memoryd has no model that could. `search_query` tells it."""


class Content(TypedDict):
    """What was found in a file."""

    type: Literal["text"]
    text: str


class FoundFile(TypedDict):
    """A chunk that was found, with what its document is."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | float | bool]
    content: list[Content]


class FoundPage(TypedDict):
    """All that was found: there is nothing that could ask for a next page."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[FoundFile]
    has_more: Literal[False]
    next_page: None


async def search(request: web.Request) -> web.Response:
    """Search a collection for the chunks that are nearest to a query, or to any of several."""
    body = await read_peer_body(request, SearchBody)
    texts = [body.query] if isinstance(body.query, str) else body.query
    collection = await find(request)
    ranking = body.ranking_options or RankingOptions()
    found = await search_chunks(
        request.app[MEMORY],
        collection,
        texts,
        limit=body.max_num_results or _USUAL_RESULTS,
        # Scores below 0 are told as 0, which a threshold of 0 lets pass.
        score_threshold=ranking.score_threshold or None,
        wanted=parse_filter(_as_own(body.filters), at="filters") if body.filters else None,
    )
    page: FoundPage = {
        "object": "vector_store.search_results.page",
        "search_query": texts,
        "data": list(map(_as_json, found)),
        "has_more": False,
        "next_page": None,
    }
    return json_response(page)


def _as_own(asked: AttributeFilter) -> dict[str, Any]:
    """Return the filter as memoryd's own say it."""
    if isinstance(asked, CompoundFilter):
        return {asked.type: list(map(_as_own, asked.filters))}
    key = re.sub(r"[.\\]", r"\\\g<0>", asked.key)
    return {"field": f"metadata.{key}", asked.type: asked.value}


def _as_json(result: Result) -> FoundFile:
    document, [found] = result.document, result.chunks
    return {
        "file_id": document.id,
        "filename": document.title or document.id,
        "score": min(max(found.cosine, 0.0), 1.0),  # OpenAI's are from 0 to 1
        "attributes": _attributes(document.metadata),
        "content": [{"type": "text", "text": found.chunk.text}],
    }


def _attributes(metadata: Mapping[str, Any]) -> dict[str, str | float | bool]:
    """Return metadata as clients of typed languages can parse it: lists and objects as JSON."""
    return {
        key: value if isinstance(value, str | int | float) else orjson.dumps(value).decode()
        for key, value in metadata.items()
        if value is not None
    }
