"""`memoryd db …`."""

import typer

from memoryd.cli.options import with_settings
from memoryd.config import Settings
from memoryd.postgres.server import app_url

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
