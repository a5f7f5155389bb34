"""Every setting, once: an option of `memoryd serve`, a variable, a key of memoryd.toml."""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from memoryd.errors import SetupError
from memoryd.machine import memory_bytes

ENVIRONMENT_PREFIX = "MEMORYD_"

Port = Annotated[int, Field(ge=0, le=65535)]


# `*`, or scheme://host[:port] with a `*` for any part of the host or for the port.
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9.*_-]+|\[[0-9a-f:]+\])(:([0-9]+|\*))?")


def default_data_dir() -> Path:
    """Return /var/lib/memoryd for root, else $XDG_DATA_HOME/memoryd."""
    if os.geteuid() == 0:
        return Path("/var/lib/memoryd")
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "memoryd"


def default_models_dir() -> Path:
    """Return the directory of model files that all data directories share."""
    return default_data_dir() / "models"


class Settings(BaseModel):
    """Hold what memoryd was told by options, environment and memoryd.toml, in this order."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: tuple[Port, ...] = Field(
        (8765,),
        min_length=1,
        description="Port to listen on; 0 picks a free one. It can be given several times, in a "
        "variable with commas.",
    )
    metrics_port: Port | None = Field(
        None,
        description="Port on which /metrics is served alone, without a key, since it tells numbers "
        "and names of models and no texts.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Where the embedded Postgres keeps its data."
    )
    models_dir: Path = Field(
        default_factory=default_models_dir,
        description="Where model files are kept, shared by all data directories.",
    )
    database_url: SecretStr | None = Field(
        None, description="Your own Postgres (with pgvector) instead of the embedded one."
    )
    model: str = Field("all-minilm", description="Embedding model of new collections.")
    alias: dict[str, str] = Field(
        {},
        description="Another name for a model, as in `mxbai-embed-large=all-minilm`, before any "
        "model that has that name. It can be given several times, in a variable with commas.",
    )
    memory_budget_bytes: int = Field(
        default_factory=lambda: memory_bytes() // 2,
        gt=0,
        description="Bytes that all loaded models may take; those that nobody uses leave before.",
    )
    long_input_bytes: int = Field(
        default_factory=lambda: memory_bytes() // 2,
        gt=0,
        description="Bytes that one long input may take beside the models; a longer one is too "
        "long.",
    )
    auto_pull: bool = Field(
        False,
        description="Whether a model of the gallery that isn't here is fetched when a request "
        "names it.",
    )
    keep_alive_s: float = Field(
        300,
        description="Seconds that a model stays after its last use; negative: for ever. "
        "One that a collection works with stays.",
    )
    gpu_layers: int = Field(
        0, ge=-1, description="Layers of each model that go on the GPU; -1: all."
    )
    measure_models: bool = Field(
        True, description="Whether a new model is measured for some seconds, to run it the fastest."
    )
    token_ids: Literal["auto", "model", "cl100k"] = Field(
        "auto",
        description="Whose the token ids are that /v1/embeddings is sent: the model's own, "
        "cl100k's, or by the model's name: cl100k's for the names of OpenAI's models.",
    )
    pad_dimensions: bool = Field(
        False,
        description="Whether vectors are padded with zeros where more dimensions are asked for.",
    )
    api_key: SecretStr | None = Field(
        None,
        description="Key that clients may send for everything, beside those of `memoryd keys`; "
        "one is needed to listen beyond this machine.",
    )
    allow_no_key: bool = Field(
        False,
        description="Whether memoryd may listen beyond this machine without a key: whoever reaches "
        "it can do everything.",
    )
    cors_origins: tuple[str, ...] = Field(
        (),
        description="Origin of web pages that may use memoryd, beside those of this machine: "
        "`https://app.example`, `https://*.example`, `http://10.0.0.7:*`, or `*` for all. It can "
        "be given several times, in a variable with commas.",
    )
    log_format: str = Field(
        "text", pattern="^(text|json)$", description="text, or json: an object in each line."
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error."
    )
    max_body_bytes: int = Field(64 << 20, gt=0, description="Largest request body.")
    max_text_chars: int = Field(5_000_000, gt=0, description="Longest text of one document.")
    max_documents: int = Field(1_000, gt=0, description="Most documents in one JSON batch.")
    max_inputs: int = Field(2_048, gt=0, description="Most inputs of one /v1/embeddings request.")
    query_cache_bytes: int = Field(
        32 << 20,
        ge=0,
        description="Bytes in which vectors of queries are kept, so that what is searched for "
        "again needs no embedding; 0: none are kept.",
    )
    hnsw_threshold: int = Field(
        10_000,
        ge=1,
        description="Chunks from which on a collection gets an index of its vectors (HNSW), which "
        "is quick and approximate; below, all vectors are compared.",
    )
    max_waiting_requests: int = Field(
        512, gt=0, description="Most requests that wait for the engine before others are refused."
    )
    database_connections: int = Field(
        8, ge=2, le=40, description="Most connections to Postgres at once."
    )
    lease_s: float = Field(
        30,
        ge=1,
        description="Seconds after which others go on with the documents of a memoryd that has "
        "died or hangs.",
    )

    @field_validator("port", mode="before")
    @classmethod
    def _list_ports(cls, given: Any) -> Any:
        if isinstance(given, str):
            return given.split(",")
        return (given,) if isinstance(given, int) else given

    @field_validator("port")
    @classmethod
    def _refuse_twice(cls, ports: tuple[int, ...]) -> tuple[int, ...]:
        named = [port for port in ports if port]
        if len(named) > len(set(named)):
            raise ValueError("the same port stands there twice")
        return ports

    @field_validator("alias", mode="before")
    @classmethod
    def _read_aliases(cls, given: Any) -> Any:
        texts = given.split(",") if isinstance(given, str) else given
        if not isinstance(texts, list):
            return texts
        pairs = [_pair(text) for text in texts]
        if len(pairs) > len(dict(pairs)):
            raise ValueError("the same name stands there twice")
        return dict(pairs)

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _list_origins(cls, given: Any) -> Any:
        return given.split(",") if isinstance(given, str) else given

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.strip().lower() for origin in given)
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin, such as https://app.example")
        return origins

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach memoryd."""
        return not is_loopback(self.host)

    @property
    def must_have_key(self) -> bool:
        """Whether a key is a must: others reach memoryd, and the user allows none without one."""
        return self.is_exposed and not self.allow_no_key

    @field_validator("data_dir", "models_dir")
    @classmethod
    def _find(cls, path: Path) -> Path:
        return _full(path)


def is_loopback(host: str) -> bool:
    """Say whether `host`, a name or an address, is this machine and no other."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Merge memoryd.toml, `MEMORYD_…` variables and `overrides`, the later over the earlier.

    `config` (else $MEMORYD_CONFIG) names the file; variables that are empty count as absent, and
    so do `overrides` that are None or an empty list. Raises SetupError naming the setting that is
    wrong and where it was set.
    """
    config = config or (Path(path) if (path := environment.get("MEMORYD_CONFIG")) else None)
    given = {name: value for name, value in (overrides or {}).items() if value not in (None, [])}
    from_file = _read_config(config) if config else {}
    from_environment = {
        name: value
        for name in Settings.model_fields
        if (value := environment.get(ENVIRONMENT_PREFIX + name.upper()))
    }
    try:
        return Settings(**{**from_file, **from_environment, **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        if name in given:
            origin = f"option --{name.replace('_', '-')}"
        elif name in from_environment:
            origin = f"variable {ENVIRONMENT_PREFIX}{name.upper()}"
        else:
            origin = f"key {name!r} in {config}"
        raise SetupError(f"{origin}: {first['msg'].removeprefix('Value error, ')}") from error


def _pair(text: Any) -> tuple[str, str]:
    name, separator, model = str(text).partition("=")
    if not (name.strip() and separator and model.strip()):
        raise ValueError(f"{text!r} must be of the form name=model")
    return name.strip(), model.strip()


def _full(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such user") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"cannot read the configuration {path}: {error.strerror}") from error
    except RuntimeError as error:  # ~someone, who isn't there
        raise SetupError(f"cannot read the configuration {path}: {error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not TOML: {error}") from error
