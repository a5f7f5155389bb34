# ruff: noqa: RUF001 # the letters of other scripts are meant
"""Tokens of converted tokenizers beside those of the library that the authors use."""

from collections.abc import Iterator

import pytest
from tiny_gguf import load, make_gguf

from memoryd.embeddings.llama import LlamaBackend

pytest.importorskip("sentence_transformers", reason="requirements/reference.lock isn't installed")

from authors import tokenizer_of
from tokenizers import Tokenizer

KINDS = ("bert", "bert-unigram", "xlm-roberta", "qwen3", "gemma-embedding")
"""One of each kind of tokenizer, and two of XLM-R's, which mark spaces in two ways."""

TEXTS = {
    "a question": "why is the sky blue?",
    "words that can be split": "searching documents and embeddings of sentences about countries",
    "nothing": "",
    "a letter": "x",
    "spaces in a row": " leading and  double   spaces",
    "tabs and lines": "tabs\tand\nnew lines\r\n\r\n\n\n\nand more",
    "decomposed accents": "e\u0301lan nai\u0308vete\u0301",
    "accents": "Élan vital, naïveté, Čeština, Ελληνικά, Кириллица",
    "ideographs": "日本語の文章と中文，以及한국어 문장",
    "right to left": "שלום עולם مرحبا بالعالم \u202ehere\u202c",
    "emoji": "👩‍👩‍👧‍👦 🇩🇪 👍🏽 emoji ☃ 🦙🦙" + "😀" * 50,
    "code": "def f(x):\n    return {k: v ** 2 for k, v in x.items()}  # 100%",
    "addresses": "https://example.com/a?b=c#d user@example.com 192.168.0.1 $1,234.56",
    "a long word": "Donaudampfschifffahrtsgesellschaftskapitän",
    "the longest word": "a" * 100,
    "capitals": "THE QUICK BROWN FOX",
    "compatibility characters": "ﬁne １２３ ＡＢＣ ½ ² № ™ Å …",
    "apostrophes": "don't we'll I'VE it's 'quoted'",
    "other spaces": "\u3000wide\u2003spaces\u00a0here",
    "invisible characters": "zero\u200bwidth\u200djoiner\ufeff soft\u00adhyphen",
    "control characters": "control\x00\x01\x07chars\x7f\x85",
    "dashes and quotes": "under_score-and—dash–es“quotes”‘single’",
    "numbers": "1234567890 12 3.14 1e10",
    "letters of odd cases": "ǅ İstanbul ß ẞ ſ",
    "letters that combine": "नमस्ते दुनिया ไทย",
    "a long text": "the cat sat on the mat. " * 100 + "end",
}


@pytest.fixture(scope="module", params=KINDS)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LlamaBackend, Tokenizer]]:
    model = make_gguf(request.param, tmp_path_factory.mktemp("tokens"), "f32")
    with load(model) as backend:
        yield backend, tokenizer_of(model.folder)


def our_tokens(backend: LlamaBackend, text: str) -> list[int]:
    return [int(id_) for id_ in (*backend.before, *backend.tokenize(text), *backend.after)]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_text_gives_the_tokens_of_the_authors_library(
    both: tuple[LlamaBackend, Tokenizer], text: str
) -> None:
    backend, tokenizer = both
    assert our_tokens(backend, text) == tokenizer.encode(text).ids


DIFFERENCES = {
    # One more token, which stands for the space; llama.cpp drops it.
    "a space at the end of a text for bge-m3": ("the cat ", ("xlm-roberta",)),
    # Text is text: its authors' library finds special tokens in it, memoryd never does.
    "special tokens": ("[SEP] </s> <|endoftext|> <eos>", KINDS),
    # BERT takes a word of more than 100 letters for an unknown one; llama.cpp splits it.
    "a word of 101 letters": ("a" * 101, ("bert",)),
    # It stands for a space in SentencePiece's tokens, and llama.cpp doesn't tell it from one.
    "the sign for spaces": (
        "\u2581 a \u2581\u2581 b",
        ("bert-unigram", "xlm-roberta", "gemma-embedding"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text", "differing"), DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_where_tokens_differ_from_those_of_the_authors_library(
    tmp_path_factory: pytest.TempPathFactory, kind: str, text: str, differing: tuple[str, ...]
) -> None:
    model = make_gguf(kind, tmp_path_factory.mktemp("tokens"), "f32")
    with load(model) as backend:
        tokens = our_tokens(backend, text)
    is_same = tokens == tokenizer_of(model.folder).encode(text).ids
    assert is_same == (kind not in differing)
