"""Tokenizing as Aleph Alpha's client knows it (aleph_alpha_client/tokenization.py)."""

from aiohttp import web
from typing_extensions import TypedDict

from memoryd.api.bodies import PeerBody, read_peer_body
from memoryd.api.errors import json_response
from memoryd.api.inputs import TokenIds
from memoryd.api.state import MEMORY


class TokenizeBody(PeerBody):
    """What /tokenize takes; other fields are ignored, null is absent."""

    prompt: str
    tokens: bool | None = None
    """Whether their texts are told; true if absent."""
    token_ids: bool | None = None
    """Whether their ids are told; true if absent."""
    model: str | None = None
    """If absent, the model of new collections."""


class TokenizeAnswer(TypedDict):
    """The tokens of a text; null where it wasn't asked for."""

    tokens: list[str] | None
    token_ids: list[int] | None


class DetokenizeBody(PeerBody):
    """What /detokenize takes; other fields are ignored, null is absent."""

    token_ids: TokenIds
    model: str | None = None
    """If absent, the model of new collections."""


class DetokenizeAnswer(TypedDict):
    """The text of tokens."""

    result: str


async def tokenize(request: web.Request) -> web.Response:
    """Return the tokens of a text."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, TokenizeBody)
    async with memory.engine.using(body.model or memory.settings.model) as model:
        ids = (await model.tokenizer.tokenize(body.prompt, "prompt")).tolist()
        pieces = await model.tokenizer.spell(ids, "prompt") if body.tokens is not False else []
    texts = [piece.decode("utf-8", "replace") for piece in pieces]
    answer: TokenizeAnswer = {
        "tokens": None if body.tokens is False else texts,
        "token_ids": None if body.token_ids is False else ids,
    }
    return json_response(answer)


async def detokenize(request: web.Request) -> web.Response:
    """Return the text of tokens."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, DetokenizeBody)
    async with memory.engine.using(body.model or memory.settings.model) as model:
        [result] = await model.tokenizer.detokenize(
            [body.token_ids], "token_ids", skip_special=False
        )
    answer: DetokenizeAnswer = {"result": result}
    return json_response(answer)
