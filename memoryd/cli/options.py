"""Command-line options made from the settings, so that each is described once."""

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from memoryd.cli import INTERRUPTED
from memoryd.config import ENVIRONMENT_PREFIX, Settings, load_settings

ConfigOption = Annotated[
    Path | None,
    typer.Option(help="A memoryd.toml to read settings from. [env var: MEMORYD_CONFIG]"),
]


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option per setting in `names` (all, where there are none), and --config.

    The command is called with the settings first, then with its own parameters.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        chosen = names or tuple(Settings.model_fields)
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        options = [_option(name) for name in chosen]
        config = inspect.Parameter(
            "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigOption
        )

        def run(**given: Any) -> None:
            overrides = {name: given.pop(name) for name in chosen}
            settings = load_settings(overrides, config=given.pop("config"))
            try:
                command(settings, **given)
            except KeyboardInterrupt as interrupt:
                raise typer.Exit(INTERRUPTED) from interrupt

        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        keyword_own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        parameters = [*keyword_own, *options, config]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # how typer learns of them
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _option(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    default = _default_text(field.get_default(call_default_factory=True, validated_data={}))
    text = f"{field.description} [default: {default}; env var: {ENVIRONMENT_PREFIX}{name.upper()}]"
    kind, is_repeated = _plain_type(field.annotation)
    option = typer.Option(help=text, metavar=f"<{kind.__name__.lower()}>")
    annotation = Annotated[(list[kind] if is_repeated else kind) | None, option]  # type: ignore[valid-type] # made at run time
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _default_text(default: Any) -> str:
    if isinstance(default, tuple):
        default = ", ".join(map(str, default))
    return "none" if default in (None, "", {}) else str(default)


def _plain_type(annotation: Any) -> tuple[type, bool]:
    """Return what is typed on a command line for a setting of that type, and whether repeatedly."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType, Annotated):
        return _plain_type(arguments[0])
    if origin is tuple:
        return _plain_type(arguments[0])[0], True
    plain = annotation if annotation in (int, Path) else str
    return plain, origin is dict
