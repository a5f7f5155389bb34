"""`memoryd db …`."""

from typing import Annotated, Any

import typer

from memoryd.cli.backup import JsonOption, describe, run_with_progress
from memoryd.cli.options import with_settings
from memoryd.cli.printing import print_json
from memoryd.config import Settings
from memoryd.memory.backups import (
    BEFORE_UPGRADE,
    Backup,
    Tell,
    keep,
    migrate,
    open_source,
    open_unserved_source,
)
from memoryd.postgres.server import app_url
from memoryd.storage.migrate import Behind
from memoryd.storage.snapshots import read_behind

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The database behind memoryd.")


@app.command()
@with_settings("data_dir", "database_url")
def url(settings: Settings) -> None:
    """Print the database's URL for tables of your own, for psql and asyncpg.

    Its role owns nothing of memoryd's: it makes tables in the schema public, where the type
    vector is at hand, and cannot see memoryd's. The URL works for the user who runs memoryd.
    """
    if settings.database_url:
        typer.echo(settings.database_url.get_secret_value())
    else:
        typer.echo(app_url(settings.data_dir))


@app.command()
@with_settings("data_dir", "database_url")
def upgrade(
    settings: Settings,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell; exit with 1 if there is anything to do.")
    ] = False,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Make no backup first, where there is no room.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Bring the database to this version of memoryd, after a backup.

    `memoryd serve` does it too when it starts. The backup goes to the folder backups in the data
    directory, where the last three are kept.
    """
    if check:
        behind, kept = run_with_progress(lambda _tell: _look(settings)), None
    elif no_backup:
        behind, kept = run_with_progress(lambda tell: _upgrade(settings, tell)), None
    else:
        behind, kept = run_with_progress(lambda tell: _upgrade_with_backup(settings, tell))
    if json:
        print_json({"pending": list(map(_described, behind)), "backup": kept and describe(kept)})
    else:
        _print_upgrade(behind, kept, "pending" if check else "done")
    if check and behind:
        raise typer.Exit(1)


async def _look(settings: Settings) -> list[Behind]:
    async with open_source(settings) as source:
        return await read_behind(source.dsn)


async def _upgrade(settings: Settings, tell: Tell) -> list[Behind]:
    async with open_unserved_source(settings) as source:
        behind = await read_behind(source.dsn)
        await migrate(source, tell)
        return behind


async def _upgrade_with_backup(
    settings: Settings, tell: Tell
) -> tuple[list[Behind], Backup | None]:
    async with open_unserved_source(settings) as source:
        behind = await read_behind(source.dsn)
        is_new = any(each.revision is None for each in behind)
        kept = None
        if behind and not is_new:
            kept = await keep(source, settings, BEFORE_UPGRADE, tell)
        await migrate(source, tell)
        return behind, kept


def _described(behind: Behind) -> dict[str, Any]:
    return {
        "branch": behind.branch,
        "revision": behind.revision,
        "lacking": list(behind.lacking),
        "schemas": behind.schemas,
    }


def _print_upgrade(behind: list[Behind], kept: Backup | None, state: str) -> None:
    if kept:
        typer.echo(f"the database as it was is in {kept.file}")
    for each in behind:
        where = "the shared schema" if each.branch == "shared" else f"{each.schemas:,} collections"
        at = each.revision or "nothing"
        typer.echo(f"{where} (at {at}): {', '.join(each.lacking)} {state}")
    if not behind:
        typer.echo("the database is up to date")
