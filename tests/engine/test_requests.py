"""Every field of every request that the engine takes changes what it gives."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from polling import until
from toys import (
    BEGIN,
    CAT_ID,
    DOG_ID,
    END,
    FISH_ID,
    MAX_TOKENS,
    WORDS,
    ToyBackend,
    ToyShelf,
    open_toy,
    toy_vector,
)

from memoryd.config import Settings
from memoryd.embeddings.engine import Engine, EngineLimits
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import Input, ModelSpec, Tokens, Tuning, Vectors
from memoryd.errors import (
    InputTooLongError,
    InvalidInputError,
    ModelKindError,
    OverloadedError,
    TooLargeError,
)
from memoryd.memory.embed import EmbedOptions, embed
from memoryd.memory.models import ModelLoader
from memoryd.memory.state import Memory
from memoryd.vectors.similarity import normalize

SPEC = ModelSpec(
    "toy",
    query_prefix="red {instruction} blue ",
    document_prefix="green {title} | ",
    instruction="plum",
)


@pytest.fixture
def backend() -> ToyBackend:
    return ToyBackend()


@pytest_asyncio.fixture
async def toy(backend: ToyBackend) -> AsyncIterator[EmbeddingModel]:
    toy = open_toy(backend, SPEC)
    yield toy
    await toy.close()


@pytest_asyncio.fixture
async def reranker() -> AsyncIterator[EmbeddingModel]:
    toy = open_toy(ToyBackend(pooling="rank"))
    yield toy
    await toy.close()


@pytest_asyncio.fixture
async def per_token() -> AsyncIterator[EmbeddingModel]:
    toy = open_toy(ToyBackend(pooling="none"))
    yield toy
    await toy.close()


class SlowlyTokenizing(ToyBackend):
    """Take its time for each text, and count them."""

    tokenized = 0

    def tokenize(
        self, text: str, max_tokens: int | None = None, *, parse_special: bool = False
    ) -> Tokens:
        """Sleep first."""
        self.tokenized += 1
        time.sleep(0.005)
        return super().tokenize(text, max_tokens, parse_special=parse_special)


async def test_what_nobody_waits_for_any_more_is_not_tokenized_to_the_end() -> None:
    backend = SlowlyTokenizing()
    toy = open_toy(backend, SPEC)
    asking = [asyncio.create_task(toy.embed(["cat dog " * 100] * 2000)) for _ in range(4)]
    await until(lambda: backend.tokenized >= 4)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    begun = backend.tokenized
    assert (await toy.embed(["fish " * 2000])).truncated == 1  # the threads are free again
    assert backend.tokenized <= begun + 3
    await toy.close()


def last_tokens(backend: ToyBackend) -> list[int]:
    return [int(token) for token in backend.batches[-1][0]]


def ids(*words: str) -> list[int]:
    return [BEGIN, *(WORDS.index(word) + 5 for word in words), END]


# embed: inputs


@pytest.mark.parametrize(
    ("item", "tokens"),
    [
        ("cat dog", [BEGIN, CAT_ID, DOG_ID, END]),
        ([CAT_ID, DOG_ID], [CAT_ID, DOG_ID]),
        ([BEGIN, CAT_ID, END], [BEGIN, CAT_ID, END]),
        (["cat", DOG_ID, "fish"], [BEGIN, CAT_ID, END, DOG_ID, FISH_ID]),
        ([DOG_ID, "cat", "fish"], [DOG_ID, CAT_ID, FISH_ID]),
        (["cat", "dog"], [BEGIN, CAT_ID, END, DOG_ID]),
    ],
    ids=["text", "ids", "ids-with-special", "text-first", "id-first", "texts"],
)
async def test_an_input_is_text_or_ids_or_both(
    toy: EmbeddingModel, backend: ToyBackend, item: Input, tokens: list[int]
) -> None:
    embeddings = await toy.embed([item])
    assert last_tokens(backend) == tokens
    assert embeddings.token_count == len(tokens)


async def test_inputs_of_all_kinds_may_come_together(toy: EmbeddingModel) -> None:
    embeddings = await toy.embed(["cat", [DOG_ID], ["fish", FISH_ID], "bird"])
    expected = [toy_vector(text) for text in ("cat", "dog", "fish", "bird")]
    assert np.allclose(embeddings.vectors, expected)
    assert embeddings.token_count == 3 + 1 + 4 + 3


@pytest.mark.parametrize("item", [[], [-1], [5 + len(WORDS)], [2**70], [-(2**70)], ["cat", -1]])
async def test_ids_that_are_not_the_models_are_refused_by_index(
    toy: EmbeddingModel, item: Input
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await toy.embed(["cat", [CAT_ID], item])
    assert refused.value.param == "input[2]"


async def test_too_many_inputs_are_refused_before_they_are_read(
    toy: EmbeddingModel, backend: ToyBackend, reranker: EmbeddingModel
) -> None:
    texts = [""] * 600_000
    for asked in (toy.embed(texts), toy.embed_tokens(texts), reranker.rerank("", texts)):
        with pytest.raises(TooLargeError, match="600000 inputs"):
            await asyncio.wait_for(asked, 2)
    assert backend.tokenizing == []


async def test_too_many_vectors_of_tokens_are_refused(backend: ToyBackend) -> None:
    backend.dimensions = 16_000
    toy = open_toy(backend)
    with pytest.raises(TooLargeError, match="4224 tokens are too many"):
        await toy.embed_tokens([[CAT_ID] * MAX_TOKENS] * 66)
    assert backend.batches == []
    await toy.close()


# embed: prefix, truncate, max_tokens, norm


async def test_a_prefix_stands_before_each_text(toy: EmbeddingModel) -> None:
    embeddings = await toy.embed(["cat", "dog"], prefix="red ")
    assert np.allclose(embeddings.vectors, [toy_vector("red cat"), toy_vector("red dog")])


@pytest.mark.parametrize("item", [[CAT_ID], ["cat", DOG_ID]])
async def test_a_prefix_before_ids_is_refused(toy: EmbeddingModel, item: Input) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await toy.embed(["cat", item], prefix="red ")
    assert refused.value.param == "input[1]"


async def test_a_long_input_is_cut_or_refused_as_truncate_says(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    text = "cat " * 100
    embeddings = await toy.embed(["dog", text], truncate=True)
    assert (embeddings.token_count, embeddings.truncated) == (3 + MAX_TOKENS, 1)
    seen = [tokens.tolist() for batch in backend.batches for tokens in batch]
    assert ids(*["cat"] * (MAX_TOKENS - 2)) in seen
    with pytest.raises(InputTooLongError, match=f"102 tokens.* {MAX_TOKENS}") as refused:
        await toy.embed(["dog", text], truncate=False)
    assert refused.value.param == "input[1]"


async def test_an_input_as_long_as_the_model_takes_is_neither_cut_nor_refused(
    toy: EmbeddingModel,
) -> None:
    embeddings = await toy.embed(["cat " * (MAX_TOKENS - 2)], truncate=False)
    assert (embeddings.token_count, embeddings.truncated) == (MAX_TOKENS, 0)


@pytest.mark.parametrize(
    ("max_tokens", "count"), [(1, 1), (2, 2), (3, 3), (5, 5), (8, 7), (10**9, 7), (None, 7)]
)
async def test_max_tokens_bounds_what_is_seen_of_an_input(
    toy: EmbeddingModel, max_tokens: int | None, count: int
) -> None:
    embeddings = await toy.embed(["cat dog fish bird horse"], max_tokens=max_tokens)
    assert embeddings.token_count == count
    assert embeddings.truncated == (count < 7)


async def test_max_tokens_never_raises_what_the_model_takes(toy: EmbeddingModel) -> None:
    embeddings = await toy.embed(["cat " * 100], max_tokens=90)
    assert (embeddings.token_count, embeddings.truncated) == (MAX_TOKENS, 1)


async def test_max_tokens_keeps_the_special_token_at_the_end(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    await toy.embed(["cat dog fish"], max_tokens=4)
    assert last_tokens(backend) == ids("cat", "dog")
    await toy.embed([[CAT_ID, DOG_ID, FISH_ID]], max_tokens=2)
    assert last_tokens(backend) == [CAT_ID, DOG_ID]
    with pytest.raises(InputTooLongError, match=r"5 tokens.* 4"):
        await toy.embed(["cat dog fish"], max_tokens=4, truncate=False)


def raw(text: str) -> Vectors:
    """Return what the toy's lane gives: three for each time that a word occurs."""
    counts = np.zeros(len(WORDS) + 1, dtype=np.float32)
    for word in text.split():
        counts[1 + WORDS.index(word)] += 3
    return counts


@pytest.mark.parametrize(
    ("norm", "length"), [(-1, 1), (0, 6 / 32760), (1, 9), (2, 45**0.5), (3, 243 ** (1 / 3))]
)
async def test_vectors_are_scaled_as_norm_says(
    toy: EmbeddingModel, norm: int, length: float
) -> None:
    embeddings = await toy.embed(["cat cat dog"], norm=norm)
    assert np.allclose(embeddings.vectors, raw("cat cat dog") / length, rtol=1e-5)


# embed_tokens


async def test_each_token_has_a_vector_that_is_not_normalized(
    toy: EmbeddingModel, per_token: EmbeddingModel
) -> None:
    for model in (toy, per_token):
        got = await model.embed_tokens(["cat dog", [FISH_ID], ["cat", DOG_ID]])
        assert [vectors.shape[0] for vectors in got.vectors] == [4, 1, 4]
        assert np.allclose(got.vectors[0][1], toy_vector("cat"))
        assert np.allclose(got.vectors[0][2], toy_vector("dog"))
        assert np.allclose(got.vectors[1][0], toy_vector("fish"))
        assert (got.token_count, got.truncated) == (9, 0)


async def test_a_prefix_stands_before_the_text_whose_tokens_are_embedded(
    toy: EmbeddingModel,
) -> None:
    got = await toy.embed_tokens(["cat"], prefix="red ")
    assert np.allclose(got.vectors[0][1:3], [toy_vector("red"), toy_vector("cat")])


async def test_the_tokens_of_a_long_input_are_cut_or_refused_as_truncate_says(
    toy: EmbeddingModel,
) -> None:
    got = await toy.embed_tokens(["cat " * 100, "dog"], truncate=True)
    assert [len(vectors) for vectors in got.vectors] == [MAX_TOKENS, 3]
    assert (got.token_count, got.truncated) == (MAX_TOKENS + 3, 1)
    with pytest.raises(InputTooLongError):
        await toy.embed_tokens(["cat " * 100], truncate=False)


async def test_max_tokens_bounds_the_tokens_that_are_embedded(toy: EmbeddingModel) -> None:
    got = await toy.embed_tokens(["cat dog fish"], max_tokens=3)
    assert (got.token_count, got.truncated) == (3, 1)


async def test_no_inputs_have_no_tokens(toy: EmbeddingModel, per_token: EmbeddingModel) -> None:
    for model in (toy, per_token):
        got = await model.embed_tokens([])
        assert (got.vectors, got.token_count, got.truncated) == ([], 0, 0)


# rerank


async def test_documents_are_scored_against_the_query(reranker: EmbeddingModel) -> None:
    documents = ["dog", "cat cat", "cat", "fish"]
    got = await reranker.rerank("cat", documents)
    assert got.scores.tolist() == [0, 2, 1, 0]
    assert (await reranker.rerank("dog dog", documents)).scores.tolist() == [2, 0, 0, 0]
    assert got.token_count == sum(4 + len(document.split()) for document in documents)
    assert (await reranker.rerank("cat", [])).scores.shape == (0,)


async def test_a_long_document_is_cut_or_refused_as_truncate_says(
    reranker: EmbeddingModel,
) -> None:
    documents = ["cat", "dog " * 100 + "cat"]
    got = await reranker.rerank("cat", documents)
    assert (got.truncated, got.token_count) == (1, 5 + MAX_TOKENS)
    assert got.scores.tolist() == [1, 0]
    with pytest.raises(InputTooLongError, match=f"105 tokens.* {MAX_TOKENS}") as refused:
        await reranker.rerank("cat", documents, truncate=False)
    assert refused.value.param == "documents[1]"


async def test_models_do_what_they_are_made_for_alone(
    toy: EmbeddingModel, reranker: EmbeddingModel, per_token: EmbeddingModel
) -> None:
    for asked in (
        reranker.embed(["cat"]),
        reranker.embed_tokens(["cat"]),
        reranker.embed_query("cat"),
        per_token.embed(["cat"]),
        per_token.embed_query("cat"),
        toy.rerank("cat", ["cat"]),
    ):
        with pytest.raises(ModelKindError):
            await asked


# Prefixes, instructions


@pytest.mark.parametrize(
    ("prompt", "instruction", "prefix"),
    [
        (None, None, ""),
        ("query", None, "red plum blue "),
        ("query", "pear", "red pear blue "),
        (None, "pear", "red pear blue "),
        ("document", None, "green none | "),
    ],
)
def test_a_prefix_is_what_the_model_wants(
    toy: EmbeddingModel, prompt: str | None, instruction: str | None, prefix: str
) -> None:
    assert toy.prefix(prompt, instruction) == prefix


async def test_a_prompt_or_instruction_that_the_model_does_not_have_is_refused(
    toy: EmbeddingModel, reranker: EmbeddingModel
) -> None:
    for prompt, instruction in (("x", None), ("", None), ("document", "pear")):
        with pytest.raises(InvalidInputError):
            toy.prefix(prompt, instruction)
    with pytest.raises(InvalidInputError) as refused:
        reranker.prefix("query", "pear")  # its query prefix has no place for one
    assert refused.value.param == "instruction"


async def test_a_query_is_embedded_with_prefix_and_instruction(toy: EmbeddingModel) -> None:
    assert np.allclose(await toy.embed_query("cat"), toy_vector("red plum blue cat"))
    with_instruction = await toy.embed_query("cat", "pear")
    assert np.allclose(with_instruction, toy_vector("red pear blue cat"))


async def test_a_long_query_is_cut(toy: EmbeddingModel, backend: ToyBackend) -> None:
    await toy.embed_query("cat " * 5000)
    assert last_tokens(backend) == ids("red", "plum", "blue", *["cat"] * (MAX_TOKENS - 5))


def test_a_document_has_its_prefix_with_the_title_in_it(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    def words(tokens: Tokens) -> list[str]:
        return [WORDS[token - 5] for token in tokens if token >= 5]

    assert words(toy.encode_document("cat", "dog")) == ["green", "cat", "dog"]
    assert words(toy.encode_document("", "dog")) == ["green", "dog"]


async def test_a_title_stands_before_the_text_where_the_prefix_has_no_place_for_it(
    backend: ToyBackend,
) -> None:
    toy = open_toy(backend, ModelSpec("toy", document_prefix="red "))
    tokens = toy.encode_document("cat", "dog")
    assert tokens.tolist() == ids("red", "cat", "dog")
    assert toy.encode_document("", "dog").tolist() == ids("red", "dog")
    await toy.close()


async def test_documents_are_embedded_as_they_were_encoded(toy: EmbeddingModel) -> None:
    inputs = [toy.encode_document("cat", "dog"), toy.encode_document("", "fish")]
    expected = [toy_vector("green cat dog"), toy_vector("green fish")]
    assert np.allclose(await toy.embed_inputs(inputs), expected)


@pytest.mark.parametrize(("max_tokens", "count"), [(10, 10), (None, MAX_TOKENS), (1000, 64)])
async def test_the_users_bound_on_a_models_input_is_kept(
    backend: ToyBackend, max_tokens: int | None, count: int
) -> None:
    toy = open_toy(backend, ModelSpec("toy", max_tokens=max_tokens))
    assert (await toy.embed(["cat " * 100])).token_count == count
    await toy.embed_query("cat " * 100)
    assert len(last_tokens(backend)) == count
    await toy.close()


# What the engine is told


async def test_each_field_of_a_tuning_is_followed(backend: ToyBackend) -> None:
    toy = open_toy(backend, SPEC, Tuning(lanes=4, threads=3, batch_tokens=24))
    assert len(backend.lanes) == 4 + 1
    await toy.embed(["cat"] * 200)
    assert set(backend.threads) == {3}
    assert max(sum(map(len, batch)) for batch in backend.batches) == 24
    await toy.close()


async def test_the_engine_hands_its_limits_to_its_models() -> None:
    shelf = ToyShelf("a")
    limits = EngineLimits(max_waiting_requests=1, long_input_bytes=20)
    async with Engine(shelf, limits) as engine, engine.using("a") as toy:
        assert toy.max_tokens == 20
        [backend] = shelf.backends["a"]
        backend.gate.clear()
        first = asyncio.create_task(toy.embed(["cat"]))
        await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError):
            await toy.embed(["cat"])
        backend.gate.set()
        await first


# What clients ask for, who keep the vectors themselves


@pytest_asyncio.fixture
async def memory(toy: EmbeddingModel) -> AsyncIterator[Memory]:
    async with Engine(ToyShelf()) as engine:
        yield memory_over(engine)


def memory_over(engine: Engine, **settings: Any) -> Memory:
    chosen = Settings(**settings)
    return Memory(chosen, None, engine, ModelLoader.of(chosen), None)  # type: ignore[arg-type] # needs neither database nor parsers


async def embedded(memory: Memory, toy: EmbeddingModel, text: Input, **options: Any) -> Vectors:
    return (await embed(memory, toy, [text], EmbedOptions(**options))).vectors[0]


async def test_clients_get_what_the_model_gives(memory: Memory, toy: EmbeddingModel) -> None:
    embeddings = await embed(memory, toy, ["cat", [DOG_ID]])
    assert np.allclose(embeddings.vectors, [toy_vector("cat"), toy_vector("dog")])


async def test_truncate_and_max_tokens_are_options(memory: Memory, toy: EmbeddingModel) -> None:
    cut = await embed(memory, toy, ["cat " * 100], EmbedOptions(max_tokens=4))
    assert (cut.token_count, cut.truncated) == (4, 1)
    with pytest.raises(InputTooLongError):
        await embed(memory, toy, ["cat dog fish"], EmbedOptions(truncate=False, max_tokens=4))


async def test_prompt_and_instruction_are_options(memory: Memory, toy: EmbeddingModel) -> None:
    for options, text in (
        ({"prompt": "query"}, "red plum blue cat"),
        ({"prompt": "query", "instruction": "pear"}, "red pear blue cat"),
        ({"instruction": "pear"}, "red pear blue cat"),
        ({"prompt": "document"}, "green none cat"),
    ):
        assert np.allclose(await embedded(memory, toy, "cat", **options), toy_vector(text)), options


@pytest.mark.parametrize("norm", [-1, 0, 1, 2, 3])
async def test_norm_is_an_option(memory: Memory, toy: EmbeddingModel, norm: int) -> None:
    got = await embedded(memory, toy, "cat cat dog", norm=norm)
    assert np.allclose(got, normalize(raw("cat cat dog")[None], norm), rtol=1e-5)


async def test_fewer_dimensions_are_cut_and_normalized_again(
    memory: Memory, toy: EmbeddingModel
) -> None:
    text = "cat cat dog lemon"  # "lemon" has one of the last axes
    got = await embedded(memory, toy, text, dimensions=3)
    assert np.allclose(got, normalize(raw(text)[None, :3]))
    assert np.linalg.norm(got) == pytest.approx(1)


@pytest.mark.parametrize("norm", [-1, 0, 1, 2, 3])
async def test_fewer_dimensions_are_scaled_as_norm_says(
    memory: Memory, toy: EmbeddingModel, norm: int
) -> None:
    text = "cat cat dog lemon"
    got = await embedded(memory, toy, text, dimensions=3, norm=norm)
    assert np.allclose(got, normalize(raw(text)[None, :3], norm), rtol=1e-5)


@pytest.mark.parametrize(
    ("dimensions", "width", "padded"),
    [(5, 5, 5), (16, 16, 16), (17, 16, 17), (4096, 16, 4096), (2**62, 16, 4096), (None, 16, 16)],
)
async def test_vectors_are_padded_where_the_settings_say_so(
    memory: Memory, toy: EmbeddingModel, dimensions: int | None, width: int, padded: int
) -> None:
    plain = await embedded(memory, toy, "cat dog", dimensions=dimensions)
    assert plain.shape == (width,)
    padding = memory_over(memory.engine, pad_dimensions=True)
    got = await embedded(padding, toy, "cat dog", dimensions=dimensions)
    assert got.shape == (padded,)
    assert np.allclose(got[:width], plain)
    assert not got[width:].any()
