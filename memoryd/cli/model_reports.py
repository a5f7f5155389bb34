"""What the commands of `memoryd models` print."""

import sys
from collections.abc import Iterable, Iterator, Sequence

import orjson
import typer
from rich.filesize import decimal

from memoryd.cli.printing import print_table
from memoryd.embeddings.tuning import GAIN
from memoryd.memory.model_changes import BroughtModel
from memoryd.memory.model_listing import ModelDescription, ModelSummary
from memoryd.memory.model_removal import RemovedModel
from memoryd.memory.model_tuning import Speed, TunedModel

_LABEL_WIDTH = 20


def print_models(models: Sequence[ModelSummary]) -> None:
    """Print a line for each model; sizes are in bytes where no person reads them."""
    columns = ("name", "kind", "size", "weights", "dimensions", "context", "source", "fault")
    if not sys.stdout.isatty():
        print_table(columns, [[*_row(model), model.fault or "-"] for model in models])
        return
    print_table(columns[:-1], map(_readable_row, models))
    for model in models:
        if model.fault:
            typer.echo(f"{model.name} can't be used: {model.fault}")


def _readable_row(model: ModelSummary) -> list[str]:
    name, kind, _, *others = _row(model)
    return [name, kind, decimal(model.size_bytes) if model.size_bytes else "-", *others]


def _row(model: ModelSummary) -> list[str]:
    numbers = (model.dimensions, model.context_tokens)
    return [
        model.name,
        model.kind or "faulty",
        str(model.size_bytes or "-"),
        model.weight_type or "-",
        *(str(number or "-") for number in numbers),
        model.source,
    ]


def print_brought(model: BroughtModel) -> None:
    """Print where a model lies now."""
    weights = f", {model.weight_type} weights" if model.weight_type else ""
    where = f"{model.path} ({decimal(model.size_bytes or 0)}{weights})"
    typer.echo(f"{model.name} {'is here already' if model.was_here else 'is here now'}: {where}")


def print_removed(removed: RemovedModel) -> None:
    """Print what was deleted of a model."""
    typer.echo(f"deleted of {removed.name}:")
    for path in removed.files:
        typer.echo(f"  {path}")


def print_description(model: ModelDescription) -> None:
    """Print all that is known of a model, one fact in each line."""
    for label, value in _facts(model):
        if value:
            typer.echo(f"{label:<{_LABEL_WIDTH}}{value}")
    if model.speeds:
        typer.echo("")
        _print_speeds(model.speeds)


def _facts(model: ModelDescription) -> Iterator[tuple[str, str]]:
    yield "name", model.name
    yield "aliases", ", ".join(model.aliases)
    yield "description", model.description
    yield "kind", model.kind or ""
    yield "architecture", model.architecture
    yield "license", model.license
    yield "languages", ", ".join(model.languages)
    yield from _shape(model)
    yield "query prefix", _quoted(model.query_prefix)
    yield "document prefix", _quoted(model.document_prefix)
    yield "instruction", _quoted(model.instruction)
    yield from _files(model)
    yield "described in", str(model.origin) if model.origin else "memoryd's gallery"
    yield "facts from", model.facts
    yield "verified", "yes, memoryd has run it" if model.is_verified else "no"


def _shape(model: ModelDescription) -> Iterator[tuple[str, str]]:
    yield "dimensions", f"{model.dimensions:,}" if model.dimensions else ""
    yield "trained dimensions", _trained_dimensions(model)
    yield "context", _tokens(model.context_tokens)
    yield "trained on", _tokens(model.trained_tokens)
    yield "vocabulary", _tokens(model.vocabulary_size)
    yield "pooling", model.pooling or ""


def _files(model: ModelDescription) -> Iterator[tuple[str, str]]:
    yield "path", str(model.path or f"not here: run `memoryd models pull {model.name}`")
    yield "size", decimal(model.size_bytes) if model.size_bytes else ""
    yield "weights", model.weight_type or ""
    yield "memory when loaded", decimal(model.memory_bytes) if model.memory_bytes else ""
    yield "source", model.source
    yield "repository", model.repository or ""
    yield "revision", model.revision or ""
    for file in model.files:
        size = f"{file.size_bytes:,} bytes" if file.size_bytes else "size unknown"
        yield "file", f"{file.path}, {size}, sha256 {file.sha256 or 'unknown'}"


def _trained_dimensions(model: ModelDescription) -> str:
    if model.min_dimensions:
        return f"all from {model.min_dimensions:,}"
    return ", ".join(f"{width:,}" for width in model.trained_dimensions)


def _tokens(value: int | None) -> str:
    return f"{value:,} tokens" if value else ""


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode() if text else ""


def _print_speeds(speeds: Iterable[Speed]) -> None:
    columns = ("weights", "lanes", "threads", "tokens per call", "tokens/s", "gain", "used")
    print_table(columns, map(_speed_row, speeds))


def _speed_row(speed: Speed) -> list[str]:
    numbers = (speed.lanes, speed.threads, speed.batch_tokens, round(speed.tokens_per_s))
    used = "yes" if speed.is_used else "-"
    return [speed.weight_type, *map(str, numbers), f"{speed.gain - 1:+.0%}", used]


def print_tuned(tuned: TunedModel) -> None:
    """Print what was measured, which way is used and why, and what would be faster."""
    _print_speeds(tuned.speeds)
    typer.echo(_explain_choice(tuned.speeds))
    typer.echo(f"Kept in {tuned.kept_in}: it counts when the model is loaded the next time.")
    if tuned.faster_weight_type:
        typer.echo(_explain_weight_type(tuned, tuned.faster_weight_type))


def _explain_choice(speeds: Sequence[Speed]) -> str:
    used = next(speed for speed in speeds if speed.is_used)
    way = f"{_count(used.lanes, 'lane')} of {_count(used.threads, 'thread')}"
    way += f", {used.batch_tokens} tokens per call"
    if used is speeds[0]:
        return f"Used: {way}. That is the default; no other was {GAIN - 1:.0%} faster in each turn."
    gain = f"{used.gain - 1:.0%}"
    return f"Used: {way}. In each turn it was at least {gain} faster than the best before."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


def _explain_weight_type(tuned: TunedModel, faster: str) -> str:
    said = f"Weights as {faster} would be faster here than the {tuned.weight_type} of the file"
    if not tuned.is_converted:
        return f"{said}: import a GGUF of the model with {faster} weights, if there is one."
    if tuned.origin:
        return (
            f"{said}: run `memoryd models remove {tuned.name}`, and import it again with "
            f"`--weight-type {faster}`."
        )
    return (
        f"{said}: run `memoryd models remove {tuned.name}`, then "
        f"`memoryd models pull {tuned.name} --weight-type {faster}`."
    )
