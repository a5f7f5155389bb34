"""Have a cross-encoder score what a search has found."""

from collections.abc import Sequence

from memoryd.embeddings.types import list_field
from memoryd.errors import ModelNotFoundError
from memoryd.memory.rerank import choose_reranker
from memoryd.memory.state import Memory
from memoryd.vectors.types import Vector

# Where a search says which model.
_PARAM = "rerank.model"


async def rerank_texts(
    memory: Memory, model_name: str | None, query: str, texts: Sequence[str]
) -> tuple[str, Vector]:
    """Return the name of the model that scores, and how well each of `texts` answers `query`.

    The scores, shape (texts,), are what the model's head gives; higher is better. A text that is
    too long is cut. Without `model_name` the only reranker that is here scores. Raises
    MissingFieldError where there are several, ModelNotFoundError, ModelKindError where there is
    none or the model is no reranker, TooLargeError, and what Engine.using raises.
    """
    name = await choose_reranker(memory, model_name, _PARAM)
    try:
        async with memory.engine.using(name) as model:
            scores = await model.rerank(query, texts, field=list_field("rerank.candidates"))
    except ModelNotFoundError as error:
        error.param = _PARAM
        raise
    return model.spec.name, scores.scores
