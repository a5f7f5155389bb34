"""Write docs/configuration.md from memoryd.config.Settings; with --check, only compare."""

import sys
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from memoryd.config import ENVIRONMENT_PREFIX, Settings

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

INTRODUCTION = """\
<!-- Written by scripts/docs from memoryd/config.py. Change it there. -->
# Settings

Each setting can be given in three ways. An option wins over a variable, and a variable wins over
the file.

- An option of `memoryd serve`. `scripts/serve` passes its options on.
- A variable in the environment. An empty one counts as absent.
- A key in a file. `--config memoryd.toml` or `MEMORYD_CONFIG` names it. It is read only if named.

In a path, `~` is the home directory. A relative path begins where memoryd is started.

The other commands take the options that they need. `memoryd COMMAND --help` lists them.
"""

AFTERWORD = """\
The commands that talk to a running server take `--url` or `MEMORYD_URL` too, for a server on
another machine. Without it they ask the one at `host` and `port`.

A `memoryd.toml`:

```toml
port = 9000
data_dir = "/srv/memoryd"
log_level = "warning"
```
"""

_DEFAULTS_BY_USER = {
    "data_dir": "`$XDG_DATA_HOME/memoryd` (`~/.local/share/memoryd`); as root `/var/lib/memoryd`",
    "long_input_bytes": "half of the machine's memory",
    "memory_budget_bytes": "half of the machine's memory",
    "models_dir": "`models` in the default `data_dir`, wherever `data_dir` is",
}


def settings_page() -> str:
    """Return the page, in Markdown."""
    rows = ["| option | variable | key | default | meaning |", "|---|---|---|---|---|"]
    rows += [_row(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join([INTRODUCTION, *rows, "", AFTERWORD])


def _row(name: str, field: Any) -> str:
    option, variable = name.replace("_", "-"), ENVIRONMENT_PREFIX + name.upper()
    cells = (f"`--{option}`", f"`{variable}`", f"`{name}`", _default(name, field))
    return f"| {' | '.join(cells)} | {field.description} |"


def _default(name: str, field: Any) -> str:
    if name in _DEFAULTS_BY_USER:
        return _DEFAULTS_BY_USER[name]
    if field.default is PydanticUndefined:
        raise ValueError(f"say in _DEFAULTS_BY_USER what {name} is by default")
    default = field.default
    if isinstance(default, tuple):
        default = ", ".join(map(str, default))
    return "none" if default in (None, "", {}) else f"`{default}`"


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(settings_page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != settings_page():
        sys.exit("docs/configuration.md isn't what memoryd/config.py says: run scripts/docs")
