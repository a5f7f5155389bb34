"""What the scripts of the Python clients share: what they ask, and how they say what they got."""

import json
import sys
from collections.abc import Callable
from typing import Any

URL = sys.argv[1]
"""Of the running memoryd."""
MODEL = "all-minilm"
TEXTS = ["why is the sky blue?", "This is a test", "Leaves are green. " * 12]
DIMENSIONS = 64
TOO_LONG = "word " * 600


def refusal(ask: Callable[[], Any]) -> dict[str, Any]:
    """Return the package and class of the error that `ask` raises, its status and its text."""
    try:
        ask()
    except Exception as error:
        kind = type(error)
        response = getattr(error, "response", None)
        return {
            "type": f"{kind.__module__.partition('.')[0]}.{kind.__name__}",
            "status": getattr(error, "status_code", getattr(response, "status_code", None)),
            "text": str(error),
        }
    raise AssertionError("nothing was refused")


def show(**answers: Any) -> None:
    """Print what the client got."""
    json.dump(answers, sys.stdout)
