"""Models: which there are, bring one here, try it, measure it."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from memoryd.config import Settings
from memoryd.embeddings.library import can_use_gpu, fastest_weight_type
from memoryd.embeddings.llama import LlamaBackend
from memoryd.embeddings.measurements import find_measurement, fingerprint, keep_measurement
from memoryd.embeddings.trial import Extent, ModelFacts, Trial, try_model
from memoryd.embeddings.tuning import default_tuning
from memoryd.embeddings.types import ModelSpec, PreparedModel
from memoryd.errors import ConflictError, ModelFileError, ModelNotFoundError, SetupError
from memoryd.models.catalog import OPENAI_NAMES, find_entry
from memoryd.models.downloads import Progress
from memoryd.models.gallery import GalleryEntry, Kind, canonical
from memoryd.models.gguf_header import GgufHeader
from memoryd.models.locks import locked
from memoryd.models.model_files import check_against_file
from memoryd.models.store import ModelFile, ensure_model, find_file
from memoryd.models.weights import WeightType

logger = logging.getLogger(__name__)

_PROGRESS_STEP_BYTES = 10 << 20
_LOCK = ".lock-measuring"
_RANK = 4  # llama_pooling_type of llama.h


@dataclass(frozen=True)
class ModelLoader:
    """Know the models of the gallery and of the models directory, and prepare them for loading."""

    models_dir: Path
    default_model: str = "all-minilm"
    gpu_layers: int = 0
    is_measuring: bool = True
    """Whether a new model is measured for some seconds before its first use."""
    fetches_gallery: bool = True
    """Whether a model of the gallery that isn't here is fetched at its first use."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """What the user has given other names, by these in their canonical form."""
    _trials: dict[str, Trial] = field(default_factory=dict, compare=False)
    """What couldn't be kept in the models directory."""

    @classmethod
    def of(cls, settings: Settings) -> "ModelLoader":
        """Return the loader that `settings` ask for.

        Raises SetupError for an alias that stands there twice, in whatever spelling.
        """
        return cls(
            models_dir=settings.models_dir,
            default_model=settings.model,
            gpu_layers=settings.gpu_layers,
            is_measuring=settings.measure_models,
            fetches_gallery=settings.auto_pull,
            aliases=_by_canonical_name(settings.alias),
        )

    def resolve(self, name: str) -> str:
        """Return the one name of a model, from any of its names, or raise ModelNotFoundError.

        The user's aliases come before all else. OpenAI's names mean the default model unless the
        user has given them to another.
        """
        try:
            return self._entry(name).name
        except ModelNotFoundError:
            is_alias = canonical(name) in self.aliases
            if is_alias or canonical(name) not in OPENAI_NAMES:
                raise
        return self._entry(self.default_model).name

    def _entry(self, name: str) -> GalleryEntry:
        return find_entry(self.aliases.get(canonical(name), name), self.models_dir)

    def refuse_alias(self, name: str) -> None:
        """Raise ConflictError for a name that nothing but the settings can give or take."""
        if model := self.aliases.get(canonical(name)):
            raise ConflictError(
                f"{name} is another name of {model} by the setting alias: change it there", "model"
            )

    async def prepare(self, name: str) -> PreparedModel:
        """Fetch, try and measure the model as far as that wasn't done before.

        Raises ModelNotFoundError for a model that isn't here and isn't to be fetched, else
        ModelFileError saying what mends it.
        """
        if not self._may_fetch(name) and self.find(name) is None:
            raise ModelNotFoundError(name)
        file = await self.ensure(name, _DownloadLog())
        trial = await self.trial(file)
        facts, spec = trial.facts, spec_of(file.entry)
        kind = kind_of(file.entry, facts)
        check_against_file(file.entry, facts.context_tokens, facts.dimensions, kind)
        on_gpu = self.gpu_layers != 0 and can_use_gpu()
        return PreparedModel(
            spec,
            trial.used.tuning if trial.used else default_tuning(on_gpu=on_gpu),
            facts.memory_bytes,
            lambda: LlamaBackend(file.path, pooling=spec.pooling, gpu_layers=self.gpu_layers),
        )

    def _may_fetch(self, name: str) -> bool:
        """Say whether a model is fetched where it isn't here: who describes one wants it."""
        entry = find_entry(name, self.models_dir)
        is_default = entry == self._entry(self.default_model)
        return self.fetches_gallery or is_default or entry.origin is not None

    def find(self, name: str, weight_type: WeightType | None = None) -> ModelFile | None:
        """Return the file of the model whose own name is `name`, if it is here.

        That of `weight_type` comes first, else that of the fastest. Raises ModelNotFoundError and
        ModelFileError.
        """
        return self.find_file(find_entry(name, self.models_dir), weight_type)

    def find_file(
        self, entry: GalleryEntry, weight_type: WeightType | None = None
    ) -> ModelFile | None:
        """Return the file of the model that `entry` describes, as `find` does."""
        return find_file(entry, self.models_dir, weight_type or fastest_weight_type())

    async def ensure(
        self,
        name: str,
        progress: Progress | None = None,
        weight_type: WeightType | None = None,
    ) -> ModelFile:
        """Return the model's file, fetched where it isn't there.

        Converted weights are of `weight_type`, else of the one that should be fastest here. Raises
        ModelNotFoundError and ModelFileError.
        """
        pooling = spec_of(find_entry(name, self.models_dir)).pooling

        async def check(path: Path) -> None:
            await try_model(path, pooling=pooling, gpu_layers=self.gpu_layers)

        chosen = weight_type or fastest_weight_type()
        return await ensure_model(name, self.models_dir, chosen, progress, check)

    async def trial(self, file: ModelFile) -> Trial:
        """Return what the file is and how fast it runs here, measured once for each machine.

        Raises ModelFileError for a file that is broken.
        """
        key = await asyncio.to_thread(self._fingerprint, file)
        if known := self._known(key):
            return known
        if not os.access(self.models_dir, os.W_OK):  # nothing can be kept: tried at each start
            return self._trials.get(key) or await self._try(file, key, "run")
        async with self._measuring():
            extent: Extent = "measure" if self.is_measuring else "run"
            return self._known(key) or await self._try(file, key, extent)

    async def measure(self, file: ModelFile) -> Trial:
        """Measure the file anew, with other types of weights too.

        Raises ModelFileError where it is broken, or the models directory can't be written.
        """
        key = await asyncio.to_thread(self._fingerprint, file)
        if not os.access(self.models_dir, os.W_OK):
            raise ModelFileError(f"{self.models_dir} can't be written: no measurement can be kept")
        async with self._measuring():
            return await self._try(file, key, "measure weights")

    @asynccontextmanager
    async def _measuring(self) -> AsyncIterator[None]:
        """Let one model be measured at a time: two would take each other's cores."""
        try:
            async with locked(self.models_dir / _LOCK):
                yield
        except OSError as error:
            raise ModelFileError(f"{self.models_dir / _LOCK} can't be used: {error}") from error

    def find_trial(self, file: ModelFile) -> Trial | None:
        """Return what is known of a file from running it on this machine, if it was.

        Raises ModelFileError for a file that can't be read.
        """
        return self._kept(self._fingerprint(file))

    def _fingerprint(self, file: ModelFile) -> str:
        """Return under what the file's measurement is kept; raise ModelFileError if unreadable."""
        pooling = spec_of(file.entry).pooling
        try:
            return fingerprint(file.path, pooling, self.gpu_layers)
        except OSError as error:
            raise ModelFileError(f"{file.path} can't be read: {error.strerror}") from error

    def _known(self, key: str) -> Trial | None:
        known = self._kept(key)
        return known if known and (known.table or not self.is_measuring) else None

    def _kept(self, key: str) -> Trial | None:
        return find_measurement(self.models_dir, key) or self._trials.get(key)

    async def _try(self, file: ModelFile, key: str, extent: Extent) -> Trial:
        logger.info("trying %s on this machine, this time only", file.path.name)
        pooling, gpu_layers = spec_of(file.entry).pooling, self.gpu_layers
        trial = await try_model(file.path, pooling=pooling, gpu_layers=gpu_layers, extent=extent)
        try:
            keep_measurement(self.models_dir, key, trial)
        except OSError as error:
            logger.warning("what was measured can't be kept: %s", error.strerror)
            self._trials[key] = trial
        return trial


class _DownloadLog:
    """Log a download every few megabytes."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, step: str, done_bytes: int, total_bytes: int | None) -> None:
        if done_bytes < self._told:
            self._told = 0
        if done_bytes - self._told >= _PROGRESS_STEP_BYTES:
            self._told = done_bytes
            total = f" of {total_bytes >> 20}" if total_bytes else ""
            logger.info("%s: %d%s MB", step, done_bytes >> 20, total)


def _by_canonical_name(given: Mapping[str, str]) -> dict[str, str]:
    spellings: dict[str, str] = {}
    for name in given:
        other = spellings.setdefault(canonical(name), name)
        if other != name:
            raise SetupError(
                f"alias {name}={given[name]}: {other}={given[other]} gives the same name: capitals "
                "and :latest don't count"
            )
    return {canonical(name): model for name, model in given.items()}


def kind_of(
    entry: GalleryEntry, facts: ModelFacts | None, header: GgufHeader | None = None
) -> Kind:
    """Return what a model is for: what running it has shown, else what it says of itself."""
    if facts:
        return "reranker" if facts.is_reranker else "embedding"
    is_users_word = spec_of(entry).pooling is not None
    if header and not is_users_word and header.own("pooling_type") == _RANK:
        return "reranker"
    return entry.kind


def spec_of(entry: GalleryEntry) -> ModelSpec:
    """Return what the engine has to know of a model.

    How vectors are pooled stands in the model's own file; a user's word comes before it.
    """
    is_users = entry.origin is not None
    return ModelSpec(
        name=entry.name,
        query_prefix=entry.query_prefix,
        document_prefix=entry.document_prefix,
        instruction=entry.instruction,
        pooling=entry.pooling if is_users else None,
        max_tokens=entry.context_tokens if is_users else None,
        trained_dimensions=entry.trained_dimensions,
        min_dimensions=entry.min_dimensions,
    )
