"""`memoryd models …`."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from memoryd.cli.client import Client, RequestError, UrlOption, connect
from memoryd.cli.model_reports import (
    print_brought,
    print_description,
    print_models,
    print_removed,
    print_tuned,
)
from memoryd.cli.options import with_settings
from memoryd.cli.printing import print_json
from memoryd.cli.progress import shown_progress
from memoryd.config import Settings
from memoryd.errors import (
    ConflictError,
    MemorydError,
    ModelNotFoundError,
    NotFoundError,
    UnavailableError,
)
from memoryd.memory import model_changes, model_removal
from memoryd.memory.model_changes import BroughtModel, Described, as_pooling, as_weight_type
from memoryd.memory.model_listing import describe_model, list_models, suggest_names
from memoryd.memory.model_tuning import tune_model
from memoryd.memory.models import ModelLoader

_ASKING_TIMEOUT_S = 5

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Embedding models and rerankers: which there are, and their files.",
)

NameArgument = Annotated[str, typer.Argument(help="A model's name, such as all-minilm.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WeightTypeOption = Annotated[
    str | None,
    typer.Option(help="Of converted weights: bf16 or f32. [default: the faster one here]"),
]


@app.command("list")
@with_settings("models_dir")
def list_(
    settings: Settings,
    shows_all: Annotated[
        bool, typer.Option("--all", help="List what could be pulled by name, too.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the models that are here.

    One that is described wrongly, or whose file is broken, is listed with its fault. Figures are
    what the model's file says, and what running it has shown once it was pulled, imported, shown
    or used. Where the output is no terminal, columns stand between tabs, and sizes are in bytes.

    Example: memoryd models list --all
    """
    models = asyncio.run(list_models(ModelLoader.of(settings)))
    shown = [model for model in models if shows_all or model.is_here or model.fault]
    if json:
        print_json({"models": shown})
    else:
        print_models(shown)


@app.command()
@with_settings("models_dir", "gpu_layers", "measure_models")
def pull(
    settings: Settings,
    names: Annotated[
        list[str],
        typer.Argument(help="Gallery names, or hf:organization/repository[:file or weight type]."),
    ],
    weight_type: WeightTypeOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch models, and try them on this machine.

    What is no GGUF is converted. A download that was broken off goes on where it was. A model that
    fails is told, and the others are fetched; the exit status is 1 then. `cl100k` is no model, but
    the table of the token ids that clients of OpenAI's models send.

    Example: memoryd models pull bge-m3 hf:Qwen/Qwen3-Embedding-0.6B-GGUF:f16
    """
    loader = ModelLoader.of(settings)
    brought: list[BroughtModel] = []
    failures: list[MemorydError] = []
    for name in names:
        try:
            brought.append(_pull(loader, name, weight_type))
        except MemorydError as error:
            failures.append(error)
            typer.echo(f"memoryd: {error.message}", err=True)
            continue
        if not json:
            print_brought(brought[-1])
    if json:
        print_json({"models": brought})
    if failures:
        raise typer.Exit(1)


def _pull(loader: ModelLoader, name: str, weight_type: str | None) -> BroughtModel:
    chosen = as_weight_type(weight_type) if weight_type else None
    with _suggesting_names(loader), shown_progress() as tell:
        pulling = model_changes.pull_model(loader, name, weight_type=chosen, progress=tell)
        return asyncio.run(pulling)


@app.command()
@with_settings("models_dir", "gpu_layers")
def show(settings: Settings, name: NameArgument, json: JsonOption = False) -> None:
    """Show all that is known of a model.

    A model that is here and was never run is loaded for that, which takes a moment.

    Example: memoryd models show all-minilm
    """
    loader = ModelLoader.of(settings)
    with _suggesting_names(loader):
        model = asyncio.run(describe_model(loader, loader.resolve(name)))
    if json:
        print_json(model)
    else:
        print_description(model)


@app.command("import")
@with_settings("models_dir", "gpu_layers", "measure_models")
def import_(
    settings: Settings,
    source: Annotated[
        str,
        typer.Argument(
            help="A .gguf file, a folder of sentence-transformers, the https address of a .gguf, "
            "ollama:name[:tag], or hf:organization/repository[:file or weight type]."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="What to call it. [default: made from the source]")
    ] = None,
    query_prefix: Annotated[
        str | None,
        typer.Option(help=r"Put before queries; {instruction} is replaced, \n begins a new line."),
    ] = None,
    document_prefix: Annotated[
        str | None,
        typer.Option(help=r"Put before documents; {title} is replaced, \n begins a new line."),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(help="What queries are for, where nothing else is said.")
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="mean, cls, last, none or rank. [default: what the file says]"),
    ] = None,
    weight_type: WeightTypeOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a model from anywhere, under a name of its own.

    A file of this machine, or of an Ollama on it, is used where it is. The rest is fetched, or
    converted, into the models directory. What is said of the model is kept there in a YAML.

    Example: memoryd models import ./my.gguf --query-prefix "query: "
    """
    loader = ModelLoader.of(settings)
    described = Described(
        query_prefix=_with_newlines(query_prefix),
        document_prefix=_with_newlines(document_prefix),
        instruction=instruction,
        pooling=as_pooling(pooling) if pooling else None,
    )
    with _suggesting_names(loader), shown_progress() as tell:
        importing = model_changes.import_model(
            loader,
            source,
            name=name,
            described=described,
            weight_type=as_weight_type(weight_type) if weight_type else None,
            progress=tell,
        )
        model = asyncio.run(importing)
    if json:
        print_json(model)
    else:
        print_brought(model)


def _with_newlines(prefix: str | None) -> str | None:
    return prefix.replace(r"\n", "\n") if prefix else prefix


@app.command()
@with_settings("models_dir", "model", "host", "port", "api_key")
def remove(
    settings: Settings,
    name: NameArgument,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Don't ask; remove the default model, too.")
    ] = False,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Delete the files that memoryd keeps for a model.

    They are listed. A file that is used in place stays. A model that a collection works with is
    kept, as far as a running memoryd can be asked for that.

    Example: memoryd models remove bge-m3
    """
    loader = ModelLoader.of(settings)
    loader.refuse_alias(name)
    with _suggesting_names(loader):
        own_name = model_removal.own_name_of(loader, name)
    if own_name == _default_model(loader) and not yes:
        raise ConflictError(f"{own_name} is the default model: add --yes to remove it", "model")
    in_use = asyncio.run(_models_in_use(settings, url))
    model_removal.check_unused(own_name, in_use)
    if sys.stdin.isatty() and not yes:
        question = f"Delete what memoryd keeps of {own_name} in {settings.models_dir}?"
        typer.confirm(question, abort=True, err=True)
    removed = model_removal.remove_model(loader, name, in_use=in_use)
    if json:
        print_json(removed)
    else:
        print_removed(removed)


def _default_model(loader: ModelLoader) -> str | None:
    try:
        return model_removal.own_name_of(loader, loader.default_model)
    except ModelNotFoundError:
        return None


async def _models_in_use(settings: Settings, url: str | None) -> set[str]:
    """Return the models of the running server's collections, or say that they aren't known."""
    try:
        async with asyncio.timeout(_ASKING_TIMEOUT_S), connect(settings, url) as client:
            return await _models_of_collections(client)
    except (UnavailableError, RequestError, TimeoutError):
        note = "no memoryd could be asked whether a collection works with the model"
        typer.echo(f"memoryd: {note}", err=True)
        return set()


async def _models_of_collections(client: Client) -> set[str]:
    models: set[str] = set()
    path: str | None = "/v1/collections"
    while path:
        page = await client.request("GET", path)
        models.update(collection["model"] for collection in page["collections"])
        cursor = page["next_cursor"]
        path = f"/v1/collections?cursor={cursor}" if cursor else None
    return models


@app.command()
@with_settings("models_dir", "gpu_layers")
def tune(settings: Settings, name: NameArgument, json: JsonOption = False) -> None:
    """Measure how a model runs fastest on this machine.

    That takes some seconds, in which nothing else should be busy. A model that is missing is
    fetched first.

    Example: memoryd models tune all-minilm
    """
    loader = ModelLoader.of(settings)
    with _suggesting_names(loader), shown_progress() as tell:
        tuned = asyncio.run(tune_model(loader, name, progress=tell))
    if json:
        print_json(tuned)
    else:
        print_tuned(tuned)


@app.command()
@with_settings("models_dir")
def path(settings: Settings, name: NameArgument) -> None:
    """Print where the file of a model is.

    It is fetched, and converted, first where it is missing.

    Example: memoryd models path all-minilm
    """
    loader = ModelLoader.of(settings)
    with _suggesting_names(loader), shown_progress() as tell:
        file = asyncio.run(loader.ensure(loader.resolve(name), tell))
    typer.echo(file.path)


@contextmanager
def _suggesting_names(loader: ModelLoader) -> Iterator[None]:
    """Say which models may be meant where one isn't known."""
    try:
        yield
    except ModelNotFoundError as error:
        near = suggest_names(loader, error.model)
        meant = f"; did you mean {' or '.join(near)}?" if near else ":"
        hint = "`memoryd models list --all` lists those that can be had by name"
        raise NotFoundError(f"{error.message}{meant} {hint}", "model") from error
