# the letters of other scripts are meant
"""Where tokens stand in the text that they came from, and what they are called."""

import pytest
from toys import BEGIN, END, ToyBackend, open_toy

from memoryd.embeddings.llama import LlamaBackend
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.tokens import Span, locate
from memoryd.errors import InvalidInputError, TooLargeError

TEXTS = (
    "why is the sky blue?",
    "The Quick  brown\tfox\n\njumps",
    "searching documents, embeddings: 100% (of them)",
    "élan vital naïve ÀÉÎ",
    "  spaces around  ",
)


def parts(text: str, pieces: list[bytes]) -> list[str | None]:
    return [span and text[span.start : span.stop] for span in locate(text, pieces)]


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "qwen3", "gemma-embedding"])
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_real_tokenizers_stand_where_they_came_from(
    tiny_backends: dict[str, LlamaBackend], kind: str, text: str
) -> None:
    backend = tiny_backends[kind]
    pieces = [backend.piece(token) for token in backend.tokenize(text).tolist()]
    spans = locate(text, pieces)
    known = [(piece, span) for piece, span in zip(pieces, spans, strict=True) if span]
    assert known
    for piece, span in known:
        part = text[span.start : span.stop]
        if piece.isascii():
            assert part.strip().lower() == piece.decode().strip().lower() or not part.isascii()
    starts = [span.start for _piece, span in known]
    assert starts == sorted(starts)


def test_byte_by_byte_a_part_of_a_character_has_the_whole_of_it() -> None:
    text = "a é 😀"
    pieces = [b"a", b" \xc3", b"\xa9", b" \xf0\x9f", b"\x98\x80"]
    assert parts(text, pieces) == ["a", " é", "é", " 😀", "😀"]


def test_letters_are_followed_through_case_accents_and_spaces() -> None:
    text = "  Élan  VITAL ﬁn"
    assert parts(text, [b" elan", b" vit", b"al", b" fin"]) == ["Élan", "VIT", "AL", "ﬁn"]


def test_a_lone_unknown_token_has_what_the_others_leave() -> None:
    text = "the ☃☃ is cold"
    pieces = [b" the", b"[UNK]", b" is", b" cold"]
    assert parts(text, pieces) == ["the", "☃☃", "is", "cold"]


def test_between_two_unknown_tokens_nothing_is_guessed() -> None:
    text = "a ☃b b ☃ b c"
    pieces = [b" a", b"[UNK]", b" b", b"[UNK]", b" b", b" c"]
    assert parts(text, pieces) == ["a", None, None, None, "b", "c"]


def test_tokens_of_another_text_are_nowhere() -> None:
    assert locate("cat", [b" dog", b" fish"]) == [None, None]
    assert locate("", [b"x", b"y"]) == [None, None]
    assert locate("cat", []) == []


def test_a_token_of_spaces_alone_is_told_where_bytes_are() -> None:
    assert locate("a  b", [b"a", b" ", b" b"])[1] == Span(1, 2)
    assert locate("A  b", [b"a", b" ", b" b"]) == [Span(0, 1), None, Span(3, 4)]


@pytest.fixture
async def toy() -> EmbeddingModel:
    return open_toy(ToyBackend())


async def test_tokens_are_described_after_a_prefix(toy: EmbeddingModel) -> None:
    [tokens] = await toy.tokenizer.describe(["cat DOG"], prefix="red ")
    assert [token.id for token in tokens] == [BEGIN, 15, 5, 6, END]
    assert [token.text for token in tokens] == ["<begin>", "red", "cat", "DOG", "<end>"]
    assert [token.is_special for token in tokens] == [True, False, False, False, True]
    assert tokens[3].span == Span(8, 11)
    [plain] = await toy.tokenizer.describe(["cat DOG"], add_special=False)
    assert [token.text for token in plain] == ["cat", "DOG"]
    await toy.close()


async def test_more_tokens_than_an_answer_should_tell_are_refused(toy: EmbeddingModel) -> None:
    with pytest.raises(TooLargeError, match="262144"):
        await toy.tokenizer.spell([5] * (1 << 18 | 1), "tokens")
    with pytest.raises(TooLargeError, match="inputs"):
        await toy.tokenizer.describe(["cat " * (1 << 17), "cat " * (1 << 17 | 1)])
    with pytest.raises(TooLargeError, match="2097152 characters"):
        await toy.tokenizer.describe([" " * (1 << 20), " " * (1 << 20 | 1)])
    await toy.close()


@pytest.mark.parametrize("token", [-1, 20, 2**40])
async def test_ids_that_are_not_the_models_are_refused(toy: EmbeddingModel, token: int) -> None:
    for refused in (
        toy.tokenizer.tokenize(["cat", token], "content"),
        toy.tokenizer.spell([5, token], "tokens"),
        toy.tokenizer.detokenize([[5], [5, token]], "ids", skip_special=True),
    ):
        with pytest.raises(InvalidInputError, match=f"{token} is no token"):
            await refused
    await toy.close()


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "qwen3", "gemma-embedding"])
def test_texts_come_back_with_and_without_special_tokens(
    tiny_backends: dict[str, LlamaBackend], kind: str
) -> None:
    backend = tiny_backends[kind]
    text = "why is the sky blue"
    tokens = backend.tokenize(text)
    whole = [*backend.before.tolist(), *tokens.tolist(), *backend.after.tolist()]
    assert backend.detokenize(tokens) == text
    assert backend.detokenize(whole, skip_special=True).strip() == text
    assert len(backend.detokenize(whole)) > len(text)
    special = b"".join(map(backend.piece, backend.after.tolist())).decode()
    assert backend.tokenize(special, parse_special=True).tolist() == backend.after.tolist()
    assert backend.tokenize(special).tolist() != backend.after.tolist()


@pytest.mark.parametrize("side", ["left", "right"])
async def test_pairs_are_cut_on_the_side_that_is_asked_for(
    tiny_backends: dict[str, LlamaBackend], side: str
) -> None:
    backend = tiny_backends["bert-rank"]
    query, document = "why is the sky blue", "cat " * 40 + "water " * 40
    whole, none = backend.join(query, document, 10_000)
    cut, count = backend.join(query, document, 60, side)
    assert (none, len(cut), count) == (0, 60, len(whole) - 60)
    first = len(backend.before) + len(backend.tokenize(query)) + 1
    inner, kept = whole[first:-1].tolist(), cut[first:-1].tolist()
    assert cut[:first].tolist() == whole[:first].tolist()
    assert cut[-1] == whole[-1]
    assert kept == (inner[-len(kept) :] if side == "left" else inner[: len(kept)])
