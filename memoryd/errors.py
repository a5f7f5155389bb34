"""The exception tree. It knows no HTTP: `api.errors` maps it to statuses.

MemorydError
├── InvalidInputError           a value that can't be used; `param` names the field
│   ├── MissingFieldError       a required field is absent
│   ├── UnknownFieldError       a field that doesn't exist (a typo is never ignored)
│   ├── EmptyInputError         nothing where something is needed
│   ├── NotTextError            an image or a sound, which no model here takes
│   ├── GenerationError         a prompt or a chat, which no model here answers
│   ├── InputTooLongError       more tokens than the model takes, and none may be cut
│   └── TooLargeError           over a limit, which the message names
├── UnauthorizedError           no API key, or one that is wrong, revoked or expired
├── ForbiddenError              a request that its key, or where it comes from, doesn't allow
├── NotFoundError               a collection, document or path that doesn't exist
│   └── ModelNotFoundError      a model that memoryd doesn't know or doesn't have
├── ConflictError               a name taken, a version that doesn't match, a thing in use
│   ├── KeyReusedError          an Idempotency-Key of another request
│   └── RepeatedTooEarlyError   an Idempotency-Key whose first request is still under way
├── ModelKindError              a reranker asked for vectors, or an embedding model for scores
├── UnavailableError            can't serve now; `retry_after_s` says when to come back
│   ├── OverloadedError         too many requests are waiting
│   │   └── OutOfMemoryError    there is no room for another model, or for so long an input
│   ├── StoppingError           memoryd is shutting down
│   └── DatabaseUnavailableError  Postgres is restarting or unreachable
├── StorageFullError            the disk of the database is full
├── EmbeddingError              the engine gave no usable vector for one input
└── SetupError                  memoryd can't start; the message says what mends it
    ├── DataDirectoryError      the data directory can't be used
    ├── PostgresError           the embedded Postgres can't be run
    ├── DatabaseError           the user's own Postgres can't be used, or a newer schema
    ├── BackupError             a backup can't be written, or not be restored
    └── ModelFileError          a model's file can't be had, read or converted
        ├── ModelFetchError     its source doesn't answer now
        └── ModelSourceError    its source has no such file, or doesn't say which one is meant
"""


class MemorydError(Exception):
    """Say in one sentence what went wrong and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInputError(MemorydError):
    """Report a value that can't be used; `param` is its path, such as `documents[3].text`."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class MissingFieldError(InvalidInputError):
    """Report a required field that is absent."""


class UnknownFieldError(InvalidInputError):
    """Report a field that doesn't exist."""


class EmptyInputError(InvalidInputError):
    """Report an empty list where something is needed."""


class NotTextError(InvalidInputError):
    """Report an image or a sound: models take text alone."""

    def __init__(self, param: str) -> None:
        super().__init__("this model embeds text only", param)


class GenerationError(InvalidInputError):
    """Report that text was to be generated."""

    def __init__(self, param: str | None = None) -> None:
        super().__init__("memoryd embeds and does not generate", param)


class InputTooLongError(InvalidInputError):
    """Report an input of more tokens than the model takes, naming both numbers."""


class TooLargeError(InvalidInputError):
    """Report a value over a limit, naming the limit."""


class UnauthorizedError(MemorydError):
    """Report an API key that is missing, wrong, revoked or expired."""


class ForbiddenError(MemorydError):
    """Report a request that its key, or where it comes from, doesn't allow."""


class NotFoundError(MemorydError):
    """Report a thing that doesn't exist."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFoundError(NotFoundError):
    """Report a model that memoryd doesn't know or doesn't have; `model` is the name as asked."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model {model!r} not found", "model")
        self.model = model


class ConflictError(MemorydError):
    """Report a name taken, a version that doesn't match or a thing in use."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class KeyReusedError(ConflictError):
    """Report an Idempotency-Key that was sent before, with another request."""


class RepeatedTooEarlyError(ConflictError):
    """Report that a request of this Idempotency-Key is under way, and when to ask again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "the first request of this Idempotency-Key is still under way: ask again in a while",
            "Idempotency-Key",
        )
        self.retry_after_s = retry_after_s


class ModelKindError(MemorydError):
    """Report a reranker that was asked for vectors, or an embedding model asked for scores."""


class UnavailableError(MemorydError):
    """Report that this can't be served now; `retry_after_s` says when to come back."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(UnavailableError):
    """Report that too many requests are waiting."""


class OutOfMemoryError(OverloadedError):
    """Report that there is no room for another model or for a long input, with the numbers."""


class StoppingError(UnavailableError):
    """Report that memoryd is shutting down; `consequence` says what isn't done for it."""

    def __init__(self, consequence: str = "") -> None:
        super().__init__(f"memoryd is shutting down{consequence and ': '}{consequence}")


class DatabaseUnavailableError(UnavailableError):
    """Report that Postgres is restarting or unreachable."""


class StorageFullError(MemorydError):
    """Report that the disk of the database is full."""


class EmbeddingError(MemorydError):
    """Report that the engine gave no usable vector for the input at `index`."""

    def __init__(self, message: str, index: int = 0) -> None:
        super().__init__(message)
        self.index = index


class SetupError(MemorydError):
    """Report why memoryd can't start, and what mends it."""


class DataDirectoryError(SetupError):
    """Report a data directory that can't be used."""


class PostgresError(SetupError):
    """Report that the embedded Postgres can't be run."""


class DatabaseError(SetupError):
    """Report a database that can't be used: too old a pgvector, a newer schema, no permission."""


class BackupError(SetupError):
    """Report a backup that can't be written or restored."""


class ModelFileError(SetupError):
    """Report a model's file that can't be had, read or converted."""


class ModelFetchError(ModelFileError):
    """Report that the source of a model's files doesn't answer now; later it may."""


class ModelSourceError(ModelFileError):
    """Report that a source hasn't what is asked of it, naming what it has."""


# Those that are kept with what failed, each standing for its descendants too.
_KEPT: tuple[type[MemorydError], ...] = (
    TooLargeError,
    InvalidInputError,
    NotFoundError,
    ConflictError,
    ModelKindError,
    OverloadedError,
    UnavailableError,
    StorageFullError,
    EmbeddingError,
    ModelFileError,
    MemorydError,
)


def describe_error(error: MemorydError) -> dict[str, str | None]:
    """Return `kind`, `message` and `param` of an error, from which `rebuild_error` makes it."""
    kind = next(each for each in _KEPT if isinstance(error, each))
    return {
        "kind": kind.__name__,
        "message": error.message,
        "param": getattr(error, "param", None),
    }


def rebuild_error(described: dict[str, str | None]) -> MemorydError:
    """Return the error that was described; one of a kind that is gone is a MemorydError."""
    kinds = {each.__name__: each for each in _KEPT}
    error = kinds.get(described["kind"] or "", MemorydError)(described["message"] or "")
    if described["param"] and isinstance(error, InvalidInputError | NotFoundError | ConflictError):
        error.param = described["param"]
    return error
