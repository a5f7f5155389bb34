"""llama.cpp's dialect (tools/server/server-context.cpp), whose tokenizing is LocalAI's too."""

from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from aiohttp import web
from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from memoryd import __version__
from memoryd.api.bodies import PeerBody, apart, read_peer_body
from memoryd.api.embedding import add_notes, note_cost, refuse_images
from memoryd.api.errors import json_response
from memoryd.api.fields import TEXTS, Rows
from memoryd.api.inputs import (
    Content,
    Inputs,
    TokenIds,
    are_texts,
    check_count,
    is_text_with_ids,
    read_inputs,
)
from memoryd.api.state import MEMORY
from memoryd.embeddings.model import EmbeddingModel, Scores
from memoryd.embeddings.types import Input, list_field
from memoryd.errors import InvalidInputError, MissingFieldError
from memoryd.memory.embed import EmbedOptions, embed
from memoryd.memory.model_listing import describe_model
from memoryd.memory.rerank import choose_reranker, ranking
from memoryd.memory.token_ids import read_token_ids
from memoryd.vectors.similarity import EUCLIDEAN

_LARGEST_NORM = 100


class EmbeddingBody(PeerBody):
    """What /embedding takes; other fields are ignored, null is absent."""

    input: Inputs = None
    content: Inputs = None
    """The same where there is no `input`."""
    embd_normalize: int | None = Field(None, ge=-1, le=_LARGEST_NORM)
    """-1 leaves vectors as they are, 0 scales them to 16 bits, p is a p-norm; 2 if absent."""
    model: str | None = None
    """memoryd's; if absent, the model of new collections."""
    truncate: bool | None = None
    """memoryd's; true if absent."""


class EmbeddingItem(TypedDict):
    """The vector of an input, or of each of its tokens where the model doesn't pool them."""

    index: int
    embedding: Rows


class TokenizeBody(PeerBody):
    """What /tokenize takes; other fields are ignored, null is absent."""

    content: Content
    add_special: bool | None = None
    """Whether special tokens are put around; false if absent."""
    parse_special: bool | None = None
    """Whether special tokens are found in texts; true if absent."""
    with_pieces: bool | None = None
    """Whether each token's text is told; false if absent."""
    model: str | None = None
    """LocalAI's; if absent, the model of new collections."""


class TokenPiece(TypedDict):
    """A token, and its part of a text: bytes where it has a part of a character."""

    id: int
    piece: str | list[int]


class TokenizeAnswer(TypedDict):
    """The tokens of a text."""

    tokens: list[int] | list[TokenPiece]


class DetokenizeBody(PeerBody):
    """What /detokenize takes; other fields are ignored, null is absent."""

    tokens: TokenIds
    model: str | None = None
    """LocalAI's; if absent, the model of new collections."""


class DetokenizeAnswer(TypedDict):
    """The text of tokens."""

    content: str


class RerankBody(PeerBody):
    """What /rerank takes; other fields are ignored, null is absent."""

    query: str
    documents: Annotated[Any, WithJsonSchema(TEXTS)]
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None
    """Jina's; false if absent."""
    truncate: bool | None = None
    """memoryd's; true if absent."""
    model: str | None = None
    """If absent, the only reranker that is here."""


class RankedText(TypedDict):
    """A document, in Jina's shape."""

    text: str


class RankedDocument(TypedDict):
    """How well a document answers a query."""

    index: int
    relevance_score: float
    document: NotRequired[RankedText]


class RerankUsage(TypedDict):
    """What scores have cost; Aleph Alpha's client reads the third."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class RerankAnswer(TypedDict):
    """Documents, the best first."""

    model: str
    object: str
    usage: RerankUsage
    results: list[RankedDocument]


class GenerationSettings(TypedDict):
    """What of llama.cpp's settings an embedding has."""

    n_ctx: int


class Modalities(TypedDict):
    """What a model takes beside text."""

    vision: bool
    audio: bool
    video: bool


class Props(TypedDict):
    """What serves: the model of new collections."""

    default_generation_settings: GenerationSettings
    total_slots: int
    model_alias: str
    model_path: str
    model_ftype: str
    modalities: Modalities
    chat_template: str
    build_info: str
    is_sleeping: bool


async def embedding(request: web.Request) -> web.Response:
    """Embed texts, or the ids of their tokens.

    A model that doesn't pool gives a vector for each token, not normalized.
    """
    memory = request.app[MEMORY]
    body = await read_peer_body(request, EmbeddingBody)
    name = body.model or memory.settings.model
    param, value = ("content", body.content) if body.input is None else ("input", body.input)
    inputs: Sequence[Input] = await apart(request, _inputs, value, param)
    norm = EUCLIDEAN if body.embd_normalize is None else body.embd_normalize
    options = EmbedOptions(truncate=body.truncate is not False, norm=norm, field=list_field(param))
    inputs = await read_token_ids(memory.settings, name, inputs, options.field)
    async with memory.engine.using(name) as model:
        if model.pooling == "none":
            return await _embed_tokens(request, model, inputs, options)
        embeddings = await embed(memory, model, inputs, options)
    answer: list[EmbeddingItem] = [
        {"index": index, "embedding": embeddings.vectors[index : index + 1]}
        for index in range(len(inputs))
    ]
    response = json_response(answer)
    add_notes(request, response, model, embeddings, None)
    return response


async def _embed_tokens(
    request: web.Request, model: EmbeddingModel, inputs: Sequence[Input], options: EmbedOptions
) -> web.Response:
    embeddings = await model.embed_tokens(inputs, truncate=options.truncate, field=options.field)
    answer: list[EmbeddingItem] = [
        {"index": index, "embedding": vectors} for index, vectors in enumerate(embeddings.vectors)
    ]
    response = json_response(answer)
    note_cost(request, response, embeddings)
    return response


def _inputs(value: Any, param: str) -> list[Input]:
    if value is None:
        raise MissingFieldError("input or content is required", "input")
    items = value if isinstance(value, list) else [value]
    texts = [
        _text_in(item, f"{param}[{at}]") if isinstance(item, dict) else item
        for at, item in enumerate(items)
    ]
    return read_inputs(texts if isinstance(value, list) else texts[0], param)


def _text_in(item: dict[str, Any], param: str) -> Any:
    """Return the text that an object holds under `prompt_string` or `content`, else the object."""
    refuse_images(item, param)
    if "prompt_string" in item:
        return item["prompt_string"]
    parts = item.get("content")
    if not isinstance(parts, list):
        return item if parts is None else parts
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidInputError(f"{param}.content must be parts of type text", f"{param}.content")
    return "".join(map(str, texts))


async def tokenize(request: web.Request) -> web.Response:
    """Return the tokens of a text."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, TokenizeBody)
    if not isinstance(body.content, str) and not is_text_with_ids(body.content):
        raise InvalidInputError("content must be a text, or a list of texts and ids", "content")
    async with memory.engine.using(body.model or memory.settings.model) as model:
        tokens = await model.tokenizer.tokenize(
            body.content,
            "content",
            add_special=body.add_special is True,
            parse_special=body.parse_special is not False,
        )
        ids = tokens.tolist()
        if not body.with_pieces:
            return json_response(TokenizeAnswer(tokens=ids))
        pieces = await model.tokenizer.spell(ids, "content")
    told: list[TokenPiece] = [
        {"id": token, "piece": _as_text(piece)} for token, piece in zip(ids, pieces, strict=True)
    ]
    return json_response(TokenizeAnswer(tokens=told))


def _as_text(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


async def detokenize(request: web.Request) -> web.Response:
    """Return the text of tokens: what each stands for, one after the other."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, DetokenizeBody)
    async with memory.engine.using(body.model or memory.settings.model) as model:
        pieces = await model.tokenizer.spell(body.tokens, "tokens")
    answer: DetokenizeAnswer = {"content": b"".join(pieces).decode("utf-8", "replace")}
    return json_response(answer)


async def rerank(request: web.Request) -> web.Response:
    """Score how well documents answer a query, as the model's head gives it."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, RerankBody)
    documents = _documents(body.documents)
    check_count(len(documents), "documents", memory.settings.max_inputs)
    name = await choose_reranker(memory, body.model)
    async with memory.engine.using(name) as model:
        scores = await model.rerank(body.query, documents, truncate=body.truncate is not False)
    answer: RerankAnswer = {
        "model": name,
        "object": "list",
        "usage": {
            "prompt_tokens": scores.token_count,
            "total_tokens": scores.token_count,
            "completion_tokens": 0,
        },
        "results": _ranked(scores, body, documents),
    }
    response = json_response(answer)
    note_cost(request, response, scores)
    return response


def _documents(value: Any) -> list[str]:
    if not value or not are_texts(value):
        raise InvalidInputError('"documents" must be a non-empty string array', "documents")
    return value


def _ranked(scores: Scores, body: RerankBody, documents: list[str]) -> list[RankedDocument]:
    ranked: list[RankedDocument] = []
    for index in ranking(scores.scores, body.top_n):
        ranked.append({"index": index, "relevance_score": float(scores.scores[index])})
        if body.return_documents:
            ranked[-1]["document"] = {"text": documents[index]}
    return ranked


async def show_props(request: web.Request) -> web.Response:
    """Tell of the model of new collections."""
    memory = request.app[MEMORY]
    async with memory.engine.using(memory.settings.model) as model:
        told = await describe_model(memory.loader, model.spec.name)
        answer: Props = {
            "default_generation_settings": {"n_ctx": model.max_tokens},
            "total_slots": model.tuning.lanes,
            "model_alias": model.spec.name,
            "model_path": str(told.path),
            "model_ftype": told.weight_type or "",
            "modalities": {"vision": False, "audio": False, "video": False},
            "chat_template": "",
            "build_info": f"memoryd-{__version__}",
            "is_sleeping": False,
        }
    return json_response(answer)
