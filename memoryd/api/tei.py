"""Text-embeddings-inference's dialect (router/src/http/server.rs and types.rs)."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from aiohttp import web
from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from typing_extensions import TypedDict

from memoryd import __version__
from memoryd.api.bodies import PeerBody, apart, read_peer_body
from memoryd.api.embedding import add_notes, note_cost, refuse_images
from memoryd.api.errors import json_response
from memoryd.api.fields import Rows
from memoryd.api.inputs import (
    IDS_OR_LISTS,
    TEXT_OR_TEXTS,
    TextList,
    TextsOrIds,
    are_ids,
    are_texts,
    check_count,
    read_texts_or_ids,
)
from memoryd.api.state import MEMORY
from memoryd.embeddings.model import EmbeddingModel, Scores
from memoryd.embeddings.tokenizer import THREADS
from memoryd.embeddings.tokens import Token
from memoryd.embeddings.types import Input, InputField, list_field
from memoryd.errors import EmptyInputError, ModelKindError
from memoryd.memory.embed import EmbedOptions, check_dimensions
from memoryd.memory.embed import embed as embed_inputs
from memoryd.memory.model_listing import ModelDescription, describe_model
from memoryd.memory.rerank import choose_reranker, ranking
from memoryd.memory.state import Memory
from memoryd.memory.token_ids import read_token_ids
from memoryd.vectors.similarity import EUCLIDEAN, NOT_NORMALIZED
from memoryd.vectors.types import Vectors

_INPUTS = list_field("inputs")
_POOLINGS = {"last": "last_token"}
_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_LABEL = "LABEL_0"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Direction = Annotated[Literal["left", "right"], BeforeValidator(_lower)]
"""On which side a long input is cut; Left and Right, as older releases want, are taken too."""


def _as_texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if are_texts(texts):
        return texts
    raise ValueError("must be a text or a list of texts")


def _as_lists_of_ids(value: Any) -> list[list[int]]:
    lists = [value] if are_ids(value) else value
    if isinstance(lists, list) and all(map(are_ids, lists)):
        return lists
    raise ValueError("must be token ids or lists of them")


Texts = Annotated[list[str], PlainValidator(_as_texts), WithJsonSchema(TEXT_OR_TEXTS)]
Ids = Annotated[list[list[int]], PlainValidator(_as_lists_of_ids), WithJsonSchema(IDS_OR_LISTS)]


class TruncationBody(PeerBody):
    """What all that read texts take; other fields are ignored, null is absent."""

    truncate: bool | None = None
    """Whether long inputs are cut, else refused; true if absent."""
    truncation_direction: Direction | None = None
    """Right if absent."""


class SimilarityParameters(TruncationBody):
    """How /similarity reads sentences."""

    prompt_name: str | None = None
    """Put the model's prefix of a "query" or a "document" before each text."""
    instruction: str | None = None
    """memoryd's: what queries are for, put into their prefix."""


class EmbedAllBody(SimilarityParameters):
    """What /embed_all takes."""

    inputs: TextsOrIds
    model: str | None = None
    """memoryd's; if absent, the model of new collections."""


class EmbedBody(EmbedAllBody):
    """What /embed takes."""

    normalize: bool | None = None
    """True if absent."""
    dimensions: int | None = None


def _without_images(value: Any) -> Any:
    refuse_images(value, "inputs")
    return value


class SimilarityInputs(PeerBody):
    """A sentence, and those that it is compared with."""

    source_sentence: str
    sentences: TextList


class SimilarityBody(PeerBody):
    """What /similarity takes; other fields are ignored, null is absent."""

    inputs: Annotated[SimilarityInputs, BeforeValidator(_without_images)]
    parameters: SimilarityParameters | None = None
    model: str | None = None
    """memoryd's; if absent, the model of new collections."""


class RerankBody(TruncationBody):
    """What /rerank takes."""

    query: str
    texts: TextList
    raw_scores: bool | None = None
    """Whether scores are as the model's head gives them, else from 0 to 1; false if absent."""
    return_text: bool | None = None
    """False if absent."""
    top_n: int | None = Field(None, ge=1)
    """llama.cpp's: how many of the best are told."""
    model: str | None = None
    """memoryd's; if absent, the only reranker that is here."""


class Rank(TypedDict):
    """How well a text answers a query."""

    index: int
    text: NotRequired[str]
    score: float


class TokenizeBody(PeerBody):
    """What /tokenize takes; other fields are ignored, null is absent."""

    inputs: Texts
    add_special_tokens: bool | None = None
    """True if absent."""
    prompt_name: str | None = None
    """Put the model's prefix of a "query" or a "document" before each text."""
    model: str | None = None
    """memoryd's; if absent, the model of new collections."""


class SimpleToken(TypedDict):
    """A token and where it stands, in characters from the prefix's first on.

    `start` and `stop` are null for special tokens, and where it can't be told for sure.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class DecodeBody(PeerBody):
    """What /decode takes; other fields are ignored, null is absent."""

    ids: Ids
    skip_special_tokens: bool | None = None
    """True if absent."""
    model: str | None = None
    """memoryd's; if absent, the model of new collections."""


class EmbeddingType(TypedDict):
    """How a model pools."""

    pooling: str


class RerankerType(TypedDict):
    """What a head's scores are called."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(TypedDict):
    """What a model is for: one of both."""

    embedding: NotRequired[EmbeddingType]
    reranker: NotRequired[RerankerType]


class Info(TypedDict):
    """What serves: the model of new collections.

    The last three are memoryd's: it was trained to be cut to `trained_dimensions`, and to all from
    `min_dimensions` on where that is set.
    """

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
    dimensions: int
    trained_dimensions: list[int]
    min_dimensions: int | None


async def embed(request: web.Request) -> web.Response:
    """Embed texts, or the ids of their tokens."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, EmbedBody)
    inputs = await _inputs(request, body)
    norm = NOT_NORMALIZED if body.normalize is False else EUCLIDEAN
    async with memory.engine.using(body.model or memory.settings.model) as model:
        dimensions = check_dimensions(memory, model, body.dimensions)
        options = _options(body, dimensions=dimensions, norm=norm)
        embeddings = await embed_inputs(memory, model, inputs, options)
    answer: Rows = list(embeddings.vectors)
    response = json_response(answer)
    add_notes(request, response, model, embeddings, dimensions)
    return response


async def _inputs(request: web.Request, body: EmbedAllBody) -> Sequence[Input]:
    settings = request.app[MEMORY].settings
    most = settings.max_inputs
    inputs = await apart(request, read_texts_or_ids, body.inputs, _INPUTS.name, most)
    return await read_token_ids(settings, body.model or settings.model, inputs, _INPUTS)


def _options(
    body: SimilarityParameters,
    *,
    dimensions: int | None = None,
    norm: int = EUCLIDEAN,
    field: InputField = _INPUTS,
) -> EmbedOptions:
    return EmbedOptions(
        truncate=body.truncate is not False,
        side=body.truncation_direction or "right",
        dimensions=dimensions,
        prompt=body.prompt_name,
        instruction=body.instruction,
        norm=norm,
        field=field,
    )


async def embed_all(request: web.Request) -> web.Response:
    """Return a vector for each token, not normalized."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, EmbedAllBody)
    inputs = await _inputs(request, body)
    async with memory.engine.using(body.model or memory.settings.model) as model:
        embeddings = await model.embed_tokens(
            inputs,
            prefix=model.prefix(body.prompt_name, body.instruction),
            truncate=body.truncate is not False,
            side=body.truncation_direction or "right",
            field=_INPUTS,
        )
    answer: list[Rows] = embeddings.vectors
    response = json_response(answer)
    note_cost(request, response, embeddings)
    return response


async def embed_sparse(request: web.Request) -> web.Response:
    """Refuse: models here give dense vectors."""
    body = await read_peer_body(request, EmbedAllBody)
    name = request.app[MEMORY].engine.resolve(body.model or request.app[MEMORY].settings.model)
    raise ModelKindError(f"{name} gives dense vectors: ask for them at /embed")


def _sentence_name(index: int) -> str:
    return f"inputs.sentences[{index - 1}]" if index else "inputs.source_sentence"


_SENTENCES = InputField("inputs", _sentence_name)


async def similarity(request: web.Request) -> web.Response:
    """Return the cosines of a sentence with others."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, SimilarityBody)
    if not body.inputs.sentences:
        raise EmptyInputError("inputs.sentences must not be empty", "inputs.sentences")
    texts = [body.inputs.source_sentence, *body.inputs.sentences]
    check_count(len(texts), "inputs", memory.settings.max_inputs)
    options = _options(body.parameters or SimilarityParameters(), field=_SENTENCES)
    async with memory.engine.using(body.model or memory.settings.model) as model:
        embeddings = await embed_inputs(memory, model, texts, options)
    # Rounding may lead beyond 1, of which no client can take the angle.
    cosines: Vectors = np.clip(embeddings.vectors[1:] @ embeddings.vectors[0], -1, 1)
    response = json_response(cosines)
    add_notes(request, response, model, embeddings, None)
    return response


async def rerank(request: web.Request) -> web.Response:
    """Score how well texts answer a query, from 0 to 1 unless raw scores are asked for."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, RerankBody)
    check_count(len(body.texts), "texts", memory.settings.max_inputs)
    async with memory.engine.using(await choose_reranker(memory, body.model)) as model:
        scores = await model.rerank(
            body.query,
            body.texts,
            truncate=body.truncate is not False,
            side=body.truncation_direction or "right",
            field=list_field("texts"),
        )
    response = json_response(_ranks(body, scores))
    note_cost(request, response, scores)
    return response


def _ranks(body: RerankBody, scores: Scores) -> list[Rank]:
    told = scores.scores if body.raw_scores or scores.are_probabilities else _sigmoid(scores.scores)
    ranks: list[Rank] = []
    for index in ranking(scores.scores, body.top_n):
        ranks.append({"index": index, "score": float(told[index])})
        if body.return_text:
            ranks[-1]["text"] = body.texts[index]
    return ranks


def _sigmoid(scores: Vectors) -> Vectors:
    """Return 1 / (1 + e^-x), in a form that no large x lets overflow."""
    return np.asarray((1 + np.tanh(scores / 2)) / 2, dtype=np.float32)


async def tokenize(request: web.Request) -> web.Response:
    """Return the tokens of texts, and where they stand in them."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, TokenizeBody)
    check_count(len(body.inputs), "inputs", memory.settings.max_inputs)
    async with memory.engine.using(body.model or memory.settings.model) as model:
        described = await model.tokenizer.describe(
            body.inputs,
            prefix=model.prefix(body.prompt_name),
            add_special=body.add_special_tokens is not False,
        )
    answer = [[_simple(token) for token in tokens] for tokens in described]
    return json_response(answer)


def _simple(token: Token) -> SimpleToken:
    return {
        "id": token.id,
        "text": token.text,
        "special": token.is_special,
        "start": token.span.start if token.span else None,
        "stop": token.span.stop if token.span else None,
    }


async def decode(request: web.Request) -> web.Response:
    """Return the texts of tokens."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, DecodeBody)
    check_count(len(body.ids), "ids", memory.settings.max_inputs)
    skip_special = body.skip_special_tokens is not False
    async with memory.engine.using(body.model or memory.settings.model) as model:
        texts = await model.tokenizer.detokenize(body.ids, "ids", skip_special=skip_special)
    return json_response(texts)


async def show_info(request: web.Request) -> web.Response:
    """Tell of the model of new collections."""
    memory = request.app[MEMORY]
    async with memory.engine.using(memory.settings.model) as model:
        told = await describe_model(memory.loader, model.spec.name)
        answer = _info(memory, model, told)
    return json_response(answer)


def _info(memory: Memory, model: EmbeddingModel, told: ModelDescription) -> Info:
    weight_type = told.weight_type or "unknown"
    return {
        "model_id": told.repository or told.name,
        "model_sha": told.revision if _COMMIT.fullmatch(told.revision or "") else None,
        "model_dtype": _DTYPES.get(weight_type, weight_type),
        "served_model_name": told.name,
        "model_type": _model_type(model),
        "max_concurrent_requests": memory.settings.max_waiting_requests,
        "max_input_length": model.max_tokens,
        "max_batch_tokens": model.tuning.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": memory.settings.max_inputs,
        "auto_truncate": True,
        "tokenization_workers": THREADS,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "dimensions": model.dimensions,
        "trained_dimensions": list(told.trained_dimensions),
        "min_dimensions": told.min_dimensions,
    }


def _model_type(model: EmbeddingModel) -> ModelType:
    if model.pooling == "rank":
        return {"reranker": {"id2label": {"0": _LABEL}, "label2id": {_LABEL: 0}}}
    return {"embedding": {"pooling": _POOLINGS.get(model.pooling, model.pooling)}}
