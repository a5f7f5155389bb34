"""Which model scores documents where the request doesn't say."""

from memoryd.errors import MissingFieldError, ModelKindError
from memoryd.memory.models import ModelLoader
from memoryd.memory.state import Memory
from memoryd.memory.stored_models import list_stored_models


async def choose_reranker(memory: Memory, name: str | None) -> str:
    """Return `name`, else that of the only reranker that is here.

    Raises ModelKindError where there is none, and MissingFieldError where there are several.
    """
    if name:
        return name
    here = await list_stored_models(ModelLoader.of(memory.settings))
    rerankers = sorted({model.entry.name for model in here if model.kind == "reranker"})
    if not rerankers:
        raise ModelKindError(
            "there is no reranker here: fetch one with `memoryd models pull`, or put its GGUF into "
            "the models directory"
        )
    if len(rerankers) > 1:
        raise MissingFieldError(f"model is required: one of {', '.join(rerankers)}", "model")
    return rerankers[0]
