"""Make of a document what a generation's model is given: chunks, and the tokens of each."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from memoryd.documents.breaks import Format, choose_format
from memoryd.documents.chunking import ChunkSpan, split
from memoryd.documents.markdown import outline_markdown
from memoryd.documents.outline import Section, section_at
from memoryd.documents.types import Chunk, Draft, Generation, OwnChunk, chunk_hash
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import Tokens
from memoryd.errors import InputTooLongError, InvalidInputError
from memoryd.memory.state import Memory
from memoryd.vectors.types import Vector

# A chunk must have room for a few words beside its title.
_LEAST_TEXT_TOKENS = 16


@dataclass(frozen=True)
class Prepared:
    """Hold a document's chunks, what the model sees of each, and vectors that were given."""

    chunks: list[Chunk]
    inputs: list[Tokens]
    given: dict[int, Vector]
    """By the chunk's position."""


async def prepare_in_thread(
    memory: Memory, model: EmbeddingModel, generation: Generation, draft: Draft
) -> Prepared:
    """Return what `prepare` returns, without holding up the event loop."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(
        memory.chunking_threads, prepare, memory, model, generation, draft
    )


def prepare(
    memory: Memory, model: EmbeddingModel, generation: Generation, draft: Draft
) -> Prepared:
    """Cut the text into chunks, or take those that the client made, and make the model's inputs.

    Raises InvalidInputError for a title or a chunk that the model has no room for, StoppingError
    at shutdown.
    """
    if draft.chunks is not None:
        return _take_own_chunks(memory, model, generation, draft, draft.chunks)
    form = _form_of(generation, draft)
    sections = draft.sections
    if sections is None and form == "markdown":
        sections = tuple(outline_markdown(draft.text))

    def count_tokens(text: str) -> int:
        memory.check_going_on()  # a thread can't be canceled, and a book takes seconds
        return model.count_tokens(text)

    limit = min(generation.chunking.max_tokens, model.max_tokens)
    room = _room_beside_title(model, draft, limit)
    overlap = generation.chunking.overlap_tokens
    while True:
        spans = split(
            draft.text,
            max_tokens=room,
            overlap_tokens=overlap,
            count_tokens=count_tokens,
            form=form,
        )
        prepared = _encode(memory, model, draft, spans, sections or ())
        excess = max(map(len, prepared.inputs), default=0) - limit
        if excess <= 0:
            return prepared
        # The tokens of title and text together are not always the sum of both.
        room -= excess


def _form_of(generation: Generation, draft: Draft) -> Format:
    form = generation.chunking.format
    return choose_format(draft.text, draft.mime_type) if form == "auto" else form


def _room_beside_title(model: EmbeddingModel, draft: Draft, limit: int) -> int:
    room = limit - len(model.encode_document(draft.title, ""))
    if room < _LEAST_TEXT_TOKENS:
        raise InvalidInputError(
            f"the title takes {limit - room} of the {limit} tokens of a chunk: shorten it, or use "
            "a collection with a larger chunking.max_tokens",
            "title",
        )
    return room


def _encode(
    memory: Memory,
    model: EmbeddingModel,
    draft: Draft,
    spans: Sequence[ChunkSpan],
    sections: Sequence[Section],
) -> Prepared:
    chunks, inputs = [], []
    for position, span in enumerate(spans):
        memory.check_going_on()
        text = draft.text[span.start_char : span.end_char]
        tokens = model.encode_document(draft.title, text)
        section = section_at(sections, span.start_char)
        chunk = Chunk(
            position,
            text,
            chunk_hash(draft.title, text),
            span.start_char,
            span.end_char,
            len(tokens),
            section.page if section else None,
            section.headings if section else None,
        )
        chunks.append(chunk)
        inputs.append(tokens)
    return Prepared(chunks, inputs, {})


def _suits(vector: Vector, draft: Draft, generation: Generation) -> bool:
    """Say whether a vector that came along is of the generation's model."""
    return draft.vectors_of == generation.model and len(vector) == generation.dimensions


def _take_own_chunks(
    memory: Memory,
    model: EmbeddingModel,
    generation: Generation,
    draft: Draft,
    given: Sequence[OwnChunk],
) -> Prepared:
    """Keep a vector that came along where it suits the generation; the model makes the others."""
    chunks, inputs, vectors = [], [], {}
    for position, own in enumerate(given):
        memory.check_going_on()
        tokens = model.encode_document(draft.title, own.text)
        if own.vector is not None and _suits(own.vector, draft, generation):
            vectors[position] = own.vector
        elif len(tokens) > model.max_tokens:
            at = f"chunks[{position}].text"
            raise InputTooLongError(
                f"{at} takes {len(tokens)} tokens with title and special tokens, and the model "
                f"takes {model.max_tokens}: make smaller chunks, or send a text",
                at,
            )
        hash_ = chunk_hash(draft.title, own.text, vectors.get(position))
        chunks.append(Chunk(position, own.text, hash_, token_count=len(tokens)))
        inputs.append(tokens)
    return Prepared(chunks, inputs, vectors)
