"""What the dialects that embed have in common."""

from typing import Any, TypeAlias

from aiohttp import web

from memoryd.api.notes import NOTES
from memoryd.embeddings.model import EmbeddingModel, Embeddings, Scores, TokenEmbeddings
from memoryd.errors import NotTextError

Cost: TypeAlias = Embeddings | TokenEmbeddings | Scores

_IMAGE_KEYS = frozenset({"image", "image_url", "input_audio", "audio", "multimodal_data"})


def note_cost(request: web.Request, response: web.StreamResponse, cost: Cost) -> None:
    """Note what a request has cost, and tell in a header how many inputs were cut."""
    request[NOTES].tokens += cost.token_count
    request[NOTES].truncated += cost.truncated
    response.headers["X-Truncated-Inputs"] = str(cost.truncated)


def add_notes(
    request: web.Request,
    response: web.Response,
    model: EmbeddingModel,
    embeddings: Embeddings,
    dimensions: int | None,
) -> None:
    """Note what embedding has cost, and tell of a width that `model` wasn't trained for."""
    note_cost(request, response, embeddings)
    if dimensions is not None and not model.is_trained_for(dimensions):
        response.headers["Warning"] = (
            f'299 memoryd "{model.spec.name} was not trained for {dimensions} dimensions"'
        )


def refuse_images(value: Any, param: str = "input") -> None:
    """Raise NotTextError, saying where in `param`, where an input is an image or a sound."""
    if isinstance(value, dict):
        _refuse_image(value, param)
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                _refuse_image(item, f"{param}[{index}]")


def _refuse_image(item: dict[str, Any], param: str) -> None:
    if _IMAGE_KEYS & {*item, str(item.get("type"))}:
        raise NotTextError(param)
    if isinstance(item.get("content"), list):
        refuse_images(item["content"], f"{param}.content")
