"""How fast a model runs on this machine, in all ways that were measured."""

from dataclasses import dataclass
from pathlib import Path

from memoryd.embeddings.trial import Trial
from memoryd.embeddings.tuning import best
from memoryd.memory.models import ModelLoader
from memoryd.models.downloads import Progress, tell_nobody


@dataclass(frozen=True)
class Speed:
    """Be one way to run a model, as it was measured on this machine."""

    weight_type: str
    lanes: int
    """How many batches are encoded side by side."""
    threads: int
    """Of each lane."""
    batch_tokens: int
    tokens_per_s: float
    gain: float
    """Its least ratio to the best one before it, with which it ran in turns."""
    is_used: bool


@dataclass(frozen=True)
class TunedModel:
    """Say how a model was measured."""

    name: str
    path: Path
    origin: Path | None
    """The file of the models directory that describes it; None: memoryd's gallery."""
    weight_type: str
    """Of its file."""
    is_converted: bool
    """Whether memoryd has chosen the weight type."""
    speeds: tuple[Speed, ...]
    """The first is the default."""
    faster_weight_type: str | None
    """One that is clearly faster than that of the file, if any is."""
    kept_in: Path
    """The folder of the measurements."""


async def tune_model(
    loader: ModelLoader, name: str, *, progress: Progress = tell_nobody
) -> TunedModel:
    """Measure anew how a model runs best on this machine, fetching it first where it is missing.

    Raises ModelNotFoundError and ModelFileError.
    """
    file = await loader.ensure(loader.resolve(name), progress)
    progress(f"measuring {file.entry.name}", 0, None)
    trial = await loader.measure(file)
    return TunedModel(
        name=file.entry.name,
        path=file.path,
        origin=file.entry.origin,
        weight_type=trial.facts.weight_type,
        is_converted=file.weight_type is not None,
        speeds=speeds_of(trial),
        faster_weight_type=faster_weight_type(trial),
        kept_in=loader.models_dir,
    )


def speeds_of(trial: Trial) -> tuple[Speed, ...]:
    """Return what was measured; the way that is used is one of the file's own weights."""
    used = trial.used
    return tuple(
        Speed(
            weight_type=measured.weight_type or trial.facts.weight_type,
            lanes=measured.tuning.lanes,
            threads=measured.tuning.threads,
            batch_tokens=measured.tuning.batch_tokens,
            tokens_per_s=measured.tokens_per_s,
            gain=measured.gain,
            is_used=measured is used,
        )
        for measured in trial.table
    )


def faster_weight_type(trial: Trial) -> str | None:
    """Return the type of weights that is clearly faster than that of the file, if any is."""
    if trial.used is None:
        return None
    copies = [measured for measured in trial.table if measured.weight_type]
    return best([trial.used, *copies]).weight_type or None
