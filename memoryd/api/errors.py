"""One table from memoryd's errors to HTTP, and one shape per dialect."""

import logging
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from typing_extensions import TypedDict

from memoryd import errors
from memoryd.api.notes import NOTES
from memoryd.api.route import Dialect, dialect_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """How an error looks from outside."""

    status: int
    type: str
    code: str


class ErrorObject(TypedDict):
    """What went wrong, where, and what mends it."""

    message: str
    type: str
    param: str | None
    """The field or parameter at fault."""
    code: str


class ErrorAnswer(TypedDict):
    """An error as OpenAI's clients, and memoryd's own, know it."""

    error: ErrorObject


class OllamaErrorAnswer(TypedDict):
    """An error as Ollama's clients know it."""

    error: str


class TeiErrorAnswer(TypedDict):
    """An error as the clients of text-embeddings-inference know it."""

    error: str
    error_type: str


_Faults: TypeAlias = dict[type[errors.MemorydError], Fault]

_INVALID = "invalid_request_error"

# An error is what its nearest ancestor here is.
FAULTS: _Faults = {
    errors.TooLargeError: Fault(413, _INVALID, "too_large"),
    errors.MissingFieldError: Fault(400, _INVALID, "missing_field"),
    errors.UnknownFieldError: Fault(400, _INVALID, "unknown_field"),
    errors.InvalidInputError: Fault(400, _INVALID, "invalid_value"),
    errors.UnauthorizedError: Fault(401, "authentication_error", "unauthorized"),
    errors.ForbiddenError: Fault(403, "permission_error", "forbidden"),
    errors.ModelNotFoundError: Fault(404, "not_found_error", "model_not_found"),
    errors.NotFoundError: Fault(404, "not_found_error", "not_found"),
    errors.KeyReusedError: Fault(422, _INVALID, "conflict"),
    errors.ConflictError: Fault(409, _INVALID, "conflict"),
    errors.EmbeddingError: Fault(400, _INVALID, "invalid_value"),
    errors.ModelKindError: Fault(501, "not_supported_error", "wrong_model"),
    errors.OverloadedError: Fault(429, "rate_limit_error", "rate_limited"),
    errors.UnavailableError: Fault(503, "api_error", "overloaded"),
    errors.StorageFullError: Fault(507, "api_error", "storage_full"),
    errors.ModelFetchError: Fault(503, "api_error", "overloaded"),
    errors.ModelSourceError: Fault(404, "not_found_error", "model_not_found"),
    errors.ModelFileError: Fault(501, "api_error", "model_unusable"),
    errors.SetupError: Fault(503, "api_error", "overloaded"),
    errors.MemorydError: Fault(500, "api_error", "internal_error"),
}

_MESSAGE_CHARS = 2_000

# When a source of models that didn't answer may be asked again.
_FETCH_AGAIN_S = "30"

# What Ollama's clients wait on and try again.
_OLLAMA_FAULTS: _Faults = {
    errors.OverloadedError: Fault(503, "api_error", "overloaded"),
}

_TEI_FAULTS: _Faults = {
    errors.OverloadedError: Fault(429, "Overloaded", "rate_limited"),
    errors.UnavailableError: Fault(503, "Unhealthy", "overloaded"),
    errors.ModelKindError: Fault(424, "Backend", "wrong_model"),
    errors.EmbeddingError: Fault(424, "Backend", "invalid_value"),
    errors.TooLargeError: Fault(413, "Validation", "too_large"),
    errors.EmptyInputError: Fault(400, "Empty", "invalid_value"),
    errors.NotTextError: Fault(400, "Validation", "invalid_value"),
    errors.InvalidInputError: Fault(422, "Validation", "invalid_value"),
}

# What Ollama says for the same thing, literally: its clients look for these.
_OLLAMA_TEXTS: dict[type[errors.MemorydError], str] = {
    errors.InputTooLongError: "the input length exceeds the context length",
    errors.OverloadedError: "server busy, please try again.  maximum pending requests exceeded",
}


def fault_of(error: errors.MemorydError) -> Fault:
    """Return status, type and code of an error."""
    return _nearest(FAULTS, error, FAULTS[errors.MemorydError])


def _nearest(table: _Faults, error: errors.MemorydError, otherwise: Fault) -> Fault:
    """Return what `table` has for the nearest ancestor of an error, which its own class is too."""
    return next((table[kind] for kind in type(error).__mro__ if kind in table), otherwise)


def error_object(error: errors.MemorydError) -> ErrorObject:
    """Return the object that stands under `error` in memoryd's own and OpenAI's shape."""
    fault = fault_of(error)
    return {
        "message": _shown(error.message),
        "type": fault.type,
        "param": getattr(error, "param", None),
        "code": fault.code,
    }


def _shown(message: str) -> str:
    """Return a message that doesn't quote all of a long value: its beginning and its end tell."""
    if len(message) <= _MESSAGE_CHARS:
        return message
    return f"{message[: _MESSAGE_CHARS // 2]}…{message[-_MESSAGE_CHARS // 2 :]}"


def error_response(request: web.Request, error: errors.MemorydError) -> web.Response:
    """Return the answer that tells `error` in the shape of the request's dialect."""
    fault = fault_of(error)
    match dialect_of(request):
        case Dialect.OLLAMA:
            fault = _nearest(_OLLAMA_FAULTS, error, fault)
            body: dict[str, Any] = {"error": _shown(_ollama_text(error))}
        case Dialect.TEI:
            fault = _tei_fault(error, fault)
            body = {"error": _shown(error.message), "error_type": fault.type}
        case Dialect.OPENAI:
            body = {"error": error_object(error)}
    response = json_response(body, status=fault.status)
    if isinstance(error, errors.UnavailableError | errors.RepeatedTooEarlyError):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.ModelFetchError):
        response.headers["Retry-After"] = _FETCH_AGAIN_S
    if fault.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if fault.status == 501:
        response.headers["x-should-retry"] = "false"  # OpenAI's clients try others of 5xx again
    return response


def _tei_fault(error: errors.MemorydError, fault: Fault) -> Fault:
    """Return the fault with TEI's status and type (core/src/lib.rs, router/src/http/types.rs)."""
    type_ = "Validation" if fault.status < 500 else "Backend"
    return _nearest(_TEI_FAULTS, error, Fault(fault.status, type_, fault.code))


def _ollama_text(error: errors.MemorydError) -> str:
    if isinstance(error, errors.ModelNotFoundError) and error.model:
        return f'model "{error.model}" not found, try pulling it first'
    if isinstance(error, errors.EmbeddingError):
        return f"embedding contains NaN or Inf values: input {error.index}"
    return _OLLAMA_TEXTS.get(type(error), error.message)


def json_response(value: Any, *, status: int = 200) -> web.Response:
    """Return `value` as JSON; numpy arrays are written without a Python loop."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=body, status=status, content_type="application/json")


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error in JSON, in the dialect's shape; nothing foreign leaks."""
    try:
        return await handler(request)
    except errors.MemorydError as error:
        if fault_of(error).status == 500:
            return _unexpected(request)
        if fault_of(error).status > 500:
            logger.warning("request %s: %s", request[NOTES].id, error.message)
        return error_response(request, error)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} is not served at {request.path}: use {allowed}"
        response = error_response(request, errors.NotFoundError(message))
        response.set_status(405)
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        message = f"there is nothing at {request.method} {request.path}"
        return error_response(request, errors.NotFoundError(message))
    except web.HTTPException as error:
        fault = errors.InvalidInputError(f"the request can't be read: {error.reason}")
        response = error_response(request, fault)
        response.set_status(error.status)
        return response
    except Exception:  # the server goes on, whatever it is
        return _unexpected(request)


def _unexpected(request: web.Request) -> web.Response:
    """Log the exception that is being handled, and answer under which id it stands there."""
    logger.exception("request %s failed", request[NOTES].id)
    message = f"memoryd failed at this request: see its log for {request[NOTES].id}"
    return error_response(request, errors.MemorydError(message))
