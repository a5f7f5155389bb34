"""Token ids that clients send instead of texts: whose they are, and what they say."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from memoryd.config import Settings
from memoryd.embeddings.types import INPUT, Input, InputField
from memoryd.errors import InvalidInputError
from memoryd.models.catalog import OPENAI_NAMES
from memoryd.models.cl100k import NAME, decode, load_table
from memoryd.models.gallery import canonical


async def read_token_ids(
    settings: Settings, model: str, inputs: Sequence[Input], field: InputField = INPUT
) -> Sequence[Input]:
    """Return `inputs` as the model behind the name `model` is to get them.

    Ids of cl100k become texts, since to the model they would mean other words; its own ids stay.
    Raises InvalidInputError, saying where in `field`, for ids that cl100k doesn't have, and where
    its table isn't here.
    """
    at = next((at for at, item in enumerate(inputs) if not isinstance(item, str)), None)
    if at is None or not _are_of_cl100k(settings, model):
        return inputs
    return await asyncio.to_thread(_decode_all, settings.models_dir, inputs, field, at)


def _are_of_cl100k(settings: Settings, model: str) -> bool:
    match settings.token_ids:
        case "auto":
            return canonical(model) in OPENAI_NAMES
        case whose:
            return whose == NAME


def _decode_all(
    models_dir: Path, inputs: Sequence[Input], field: InputField, at: int
) -> list[Input]:
    table = load_table(models_dir)
    if table is None:
        first = field.item_name(at)
        raise InvalidInputError(
            f"{first} has token ids of cl100k, and the table that says which text they are isn't "
            "here. Fetch it, once, with `memoryd models pull cl100k`; or send texts: LangChain's "
            "OpenAIEmbeddings does so with check_embedding_ctx_length=False",
            first,
        )
    return [
        item if isinstance(item, str) else decode(table, item, field.item_name(index))
        for index, item in enumerate(inputs)
    ]
