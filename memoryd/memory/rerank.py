"""Which model scores documents where the request doesn't say, and which of them are best."""

import numpy as np

from memoryd.errors import MissingFieldError, ModelKindError
from memoryd.memory.state import Memory
from memoryd.memory.stored_models import list_by_name
from memoryd.vectors.types import Vectors


async def choose_reranker(memory: Memory, name: str | None, param: str = "model") -> str:
    """Return `name`, else that of the only reranker that is here.

    Raises ModelKindError where there is none, and MissingFieldError, naming `param`, where there
    are several.
    """
    if name:
        return name
    here = await list_by_name(memory.loader)
    # Each once, by the first of its names: its own may be an alias of another model.
    named = {model.entry.name: name for name, model in reversed(here) if model.kind == "reranker"}
    rerankers = sorted(named.values())
    if not rerankers:
        raise ModelKindError(
            "there is no reranker here: fetch one with `memoryd models pull`, or put its GGUF into "
            "the models directory"
        )
    if len(rerankers) > 1:
        raise MissingFieldError(f"{param} is required: one of {', '.join(rerankers)}", param)
    return rerankers[0]


def ranking(scores: Vectors, top_n: int | None) -> list[int]:
    """Return the indexes of the best of `scores` (n,), the first of equals first; None: of all."""
    best: list[int] = np.argsort(-scores, kind="stable")[:top_n].tolist()
    return best
