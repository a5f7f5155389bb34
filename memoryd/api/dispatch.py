"""Paths that several dialects share: a key of the body tells which one a client speaks."""

from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from memoryd.api import aleph_alpha_tokens, llamacpp, openai, tei
from memoryd.api.bodies import read_lenient_json
from memoryd.api.route import DIALECT, Dialect
from memoryd.errors import InvalidInputError, MissingFieldError

_Handlers = Mapping[str, tuple[Dialect, Handler]]

# The first key that a body has decides; null is absent.
_EMBEDDINGS: _Handlers = {
    "input": (Dialect.OPENAI, openai.embeddings),
    "content": (Dialect.OPENAI, llamacpp.embedding),
}
_RERANK: _Handlers = {
    "documents": (Dialect.OPENAI, llamacpp.rerank),
    "texts": (Dialect.TEI, tei.rerank),
}
_TOKENIZE: _Handlers = {
    "content": (Dialect.OPENAI, llamacpp.tokenize),
    "inputs": (Dialect.TEI, tei.tokenize),
    "prompt": (Dialect.OPENAI, aleph_alpha_tokens.tokenize),
}
_DETOKENIZE: _Handlers = {
    "tokens": (Dialect.OPENAI, llamacpp.detokenize),
    "token_ids": (Dialect.OPENAI, aleph_alpha_tokens.detokenize),
}


async def embeddings(request: web.Request) -> web.StreamResponse:
    """Embed as OpenAI does where the body has `input`, as llama.cpp where it has `content`."""
    return await _serve_by_key(request, _EMBEDDINGS)


async def rerank(request: web.Request) -> web.StreamResponse:
    """Score `documents` as Jina and llama.cpp do, or `texts` as TEI does."""
    return await _serve_by_key(request, _RERANK)


async def tokenize(request: web.Request) -> web.StreamResponse:
    """Tokenize `content` as llama.cpp and LocalAI do, `inputs` as TEI, `prompt` as Aleph Alpha."""
    return await _serve_by_key(request, _TOKENIZE)


async def detokenize(request: web.Request) -> web.StreamResponse:
    """Return the text of `tokens` as llama.cpp and LocalAI do, of `token_ids` as Aleph Alpha."""
    return await _serve_by_key(request, _DETOKENIZE)


async def root(request: web.Request) -> web.StreamResponse:
    """Embed `inputs` as TEI does, or compare sentences where it is an object."""
    body = await read_lenient_json(request)
    inputs = body.get("inputs") if isinstance(body, dict) else None
    return await (tei.similarity if isinstance(inputs, dict) else tei.embed)(request)


async def _serve_by_key(request: web.Request, handlers: _Handlers) -> web.StreamResponse:
    """Let the handler serve whose key the body has; raise MissingFieldError where it has none."""
    body = await read_lenient_json(request)
    if not isinstance(body, dict):
        raise InvalidInputError("the body must be a JSON object")
    for key, (dialect, handler) in handlers.items():
        if body.get(key) is not None:
            request[DIALECT] = dialect
            return await handler(request)
    keys = " or ".join(f'"{key}"' for key in handlers)
    raise MissingFieldError(f"{keys} must be provided", next(iter(handlers)))
