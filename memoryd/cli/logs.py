"""How a server's log looks: lines for people, or a JSON object in each line for machines."""

import json
import logging
from datetime import UTC, datetime

from memoryd.config import Settings

_TEXT = "%(asctime)s %(levelname)s %(message)s"


class _JsonFormatter(logging.Formatter):
    """Write a record as one line of JSON, its exception in a field.

    `fields` of a record, as the access log gives them, become fields of their own.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _rfc_3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        whole = {name: _whole(value) for name, value in entry.items()}
        return json.dumps(whole, default=str)  # in ASCII: nothing moves a terminal's cursor


def _whole(value: object) -> object:
    """Return text without half characters, which no reader of JSON takes."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _rfc_3339(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def configure_logging(settings: Settings) -> None:
    """Let all records of this process, Python's warnings too, go to stderr as settings say."""
    handler = logging.StreamHandler()
    is_json = settings.log_format == "json"
    handler.setFormatter(_JsonFormatter() if is_json else logging.Formatter(_TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Its pool tells with a traceback of each time that it finds Postgres away; memoryd tells too.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
    logging.captureWarnings(True)
