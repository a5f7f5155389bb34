"""The commands that people type."""

import sys

from memoryd.errors import MemorydError

INTERRUPTED = 130  # what shells report of a command that Ctrl-C has ended


def main() -> None:
    """Run the command that the arguments name; an error is one line and exit status 1."""
    try:
        # Imported here, since it takes a second in which Ctrl-C may come too.
        from memoryd.cli.commands import app

        app()
    except MemorydError as error:
        sys.exit(f"memoryd: {error.message}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
