"""What the dialects that embed have in common."""

from typing import Any

from aiohttp import web

from memoryd.embeddings.model import EmbeddingModel, Embeddings
from memoryd.errors import InvalidInputError

_IMAGE_KEYS = frozenset({"image", "image_url", "input_audio", "audio", "multimodal_data"})


def add_notes(
    response: web.Response, model: EmbeddingModel, embeddings: Embeddings, dimensions: int | None
) -> None:
    """Tell in headers how many inputs were cut, and of a width that `model` wasn't trained for."""
    response.headers["X-Truncated-Inputs"] = str(embeddings.truncated)
    if dimensions is not None and not model.is_trained_for(dimensions):
        response.headers["Warning"] = (
            f'299 memoryd "{model.spec.name} was not trained for {dimensions} dimensions"'
        )


def refuse_images(value: Any) -> None:
    """Raise InvalidInputError where an input is an image or a sound."""
    items = value if isinstance(value, list) else [value]
    for index, item in enumerate(items):
        if isinstance(item, dict) and (_IMAGE_KEYS & {*item, str(item.get("type"))}):
            raise InvalidInputError("this model embeds text only", f"input[{index}]")
