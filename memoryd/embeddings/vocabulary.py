"""A model's tokenizer: text → tokens, with the special ones where the model wants them."""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import normalize

import llama_cpp.llama_cpp as llama
import numpy as np

from memoryd.embeddings.types import Side, Tokens, cut_at
from memoryd.errors import ModelFileError

_PIECE_CHARS = 8192
_REMEMBERED_TEXTS = 4
_TOKEN_BYTES = 64  # enough for most
_NO_TOKENS: Tokens = np.empty(0, dtype=np.int32)
_QUERY, _DOCUMENT = "{query}", "{document}"


class Vocabulary:
    """Hold the vocabulary of a loaded model; safe in any thread."""

    def __init__(
        self, model: object, *, is_composed: bool = False, adds_space: bool = False
    ) -> None:
        """Take a model of llama.cpp's, which must outlive this.

        `is_composed` where the authors' tokenizer brings texts to Unicode's NFC first,
        `adds_space` where it puts a space before each text.
        """
        self._is_composed = is_composed
        self._adds_space = adds_space
        self._vocab = llama.llama_model_get_vocab(model)
        self._is_wordpiece = llama.llama_vocab_type(self._vocab) == llama.LLAMA_VOCAB_TYPE_WPM
        self.size: int = llama.llama_vocab_n_tokens(self._vocab)
        specials = self._tokenize("", add_special=True)
        # A beginning token, if the model adds one, comes first; all others end the input.
        beginning = int(llama.llama_vocab_get_add_bos(self._vocab) and len(specials) > 0)
        self.before, self.after = specials[:beginning], specials[beginning:]
        # For a query that is put before thousands of documents.
        self.tokenize_again: Callable[[str], Tokens] = lru_cache(_REMEMBERED_TEXTS)(self.tokenize)

    def tokenize(
        self, text: str, max_tokens: int | None = None, *, parse_special: bool = False
    ) -> Tokens:
        """Return the ids of `text` without special tokens around it.

        Text is text: "[SEP]" in it is five characters, never the special token, so that nobody
        changes an embedding's structure from inside a document; `parse_special` makes it the token.
        Of a long text that has more than `max_tokens`, the rest may be left out.
        """
        if self._is_composed:
            text = normalize("NFC", text)
        if len(text) <= _PIECE_CHARS:
            return self._tokenize(text, parse_special=parse_special)
        tokens, count = [], 0
        for piece in self._pieces(text):
            tokens.append(self._tokenize(piece, parse_special=parse_special))
            count += len(tokens[-1])
            if max_tokens is not None and count > max_tokens:
                break
        return np.concatenate(tokens)

    def _pieces(self, text: str) -> Iterator[str]:
        """Yield a long text piece by piece: llama.cpp takes the square of the time for some.

        They are cut before spaces, where words begin whatever the tokenizer.
        """
        start = 0
        while start < len(text):
            end = start + _PIECE_CHARS
            if end < len(text):
                space = text.rfind(" ", start + 1, end)
                end = space if space > 0 else end
            piece = text[start:end]
            # SentencePiece's tokenizers put a space before a text by themselves.
            yield piece[1:] if start and self._adds_space and piece[0] == " " else piece
            start = end

    def tokenize_template(self, text: str) -> Tokens:
        """Return the ids of a text of the model's authors, in which special tokens are meant."""
        return self._tokenize(text, parse_special=True)

    def _tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> Tokens:
        data = text.encode("utf-8", "replace")
        # One token per byte at most, plus special ones; the untouched end of the buffer is free.
        size = len(data) + 8
        while True:
            tokens = np.empty(size, dtype=np.int32)
            buffer = tokens.ctypes.data_as(ctypes.POINTER(llama.llama_token))
            count = llama.llama_tokenize(
                self._vocab, data, len(data), buffer, size, add_special, parse_special
            )
            if count >= 0:
                return tokens[:count].copy()
            size = -count

    def is_special(self, token: int) -> bool:
        """Say whether `token` is one that no text gives."""
        return bool(llama.llama_vocab_is_control(self._vocab, token))

    def piece(self, token: int) -> bytes:
        """Return what `token` stands for in a text: UTF-8, or a part of a character's."""
        size = _TOKEN_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def text_of(self, tokens: Tokens, *, skip_special: bool = False) -> str:
        """Return the text that `tokens` stand for, without special ones where they are skipped."""
        if skip_special:
            tokens = np.array([token for token in tokens if not self.is_special(int(token))])
        data = np.ascontiguousarray(tokens, dtype=np.int32)
        pointer = data.ctypes.data_as(ctypes.POINTER(llama.llama_token))
        size = _TOKEN_BYTES * (len(data) + 1)
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama.llama_detokenize(
                self._vocab, pointer, len(data), buffer, size, False, not skip_special
            )
            if count >= 0:
                break
            size = -count
        text = buffer.raw[:count].decode("utf-8", "replace")
        # llama.cpp writes BERT's words with the space that was before them, the first one too.
        return text.removeprefix(" ") if self._is_wordpiece else text

    def end_token(self) -> Tokens:
        """Return the token that ends a text, or nothing where the model has none."""
        token = llama.llama_vocab_eos(self._vocab)
        return np.array([token], dtype=np.int32) if token >= 0 else _NO_TOKENS

    def separator(self) -> Tokens:
        """Return what stands between the texts of a pair (server-common.cpp of llama.cpp)."""
        ids = []
        end = llama.llama_vocab_eos(self._vocab)
        if llama.llama_vocab_get_add_eos(self._vocab):
            ids.append(end if end >= 0 else llama.llama_vocab_sep(self._vocab))
        if llama.llama_vocab_get_add_sep(self._vocab):
            ids.append(llama.llama_vocab_sep(self._vocab))
        return np.array([token for token in ids if token >= 0], dtype=np.int32)


@dataclass(frozen=True)
class PairTemplate:
    """Say how a reranker wants a query and a document put together.

    Special tokens stand in `head` and `tail` alone; all between is text, so that neither query nor
    document can bring any.
    """

    head: Tokens
    lead: str
    """Before the query."""
    middle: Tokens | str
    """Between query and document: tokens where each is tokenized alone, text where together."""
    tail: Tokens


def read_pair_template(vocabulary: Vocabulary, template: str | None) -> PairTemplate:
    """Return the pair template that a file carries, else that of BERT's kind.

    Raises ModelFileError for one that puts the document first.
    """
    if template is None or _QUERY not in template or _DOCUMENT not in template:
        return PairTemplate(vocabulary.before, "", vocabulary.separator(), vocabulary.after)
    opening, rest = template.split(_QUERY, 1)
    if _DOCUMENT not in rest:
        raise ModelFileError("the model's template for reranking puts the document first")
    middle, closing = rest.split(_DOCUMENT, 1)
    tokens = vocabulary.tokenize_template(opening)
    special = [at for at, token in enumerate(tokens) if vocabulary.is_special(int(token))]
    cut = special[-1] + 1 if special else 0
    lead = vocabulary.text_of(tokens[cut:])
    return PairTemplate(tokens[:cut], lead, middle, vocabulary.tokenize_template(closing))


def join_pair(
    vocabulary: Vocabulary,
    template: PairTemplate,
    query: str,
    document: str,
    max_tokens: int,
    side: Side = "right",
) -> tuple[Tokens, int]:
    """Return the tokens of a pair, and how many were cut for it to fit.

    The document is cut on that side; a long query, on the same, leaves half of the room to it.
    """
    room = max(0, max_tokens - len(template.head) - len(template.tail))
    first, middle = vocabulary.tokenize_again(template.lead + query), template.middle
    if isinstance(middle, str) and len(first) <= room:
        body = vocabulary.tokenize(template.lead + query + middle + document)
        if len(body) <= room:
            return np.concatenate((template.head, body, template.tail)), 0
    if isinstance(middle, str):
        middle = vocabulary.tokenize_again(middle)
    second = vocabulary.tokenize(document)
    whole = len(first) + len(middle) + len(second)
    first = cut_at(first, room - len(middle) - min(len(second), room // 2), side)
    second = cut_at(second, room - len(middle) - len(first), side)
    body = np.concatenate((first, middle, second))[:room]
    cut = whole - len(body)
    return np.concatenate((template.head, body, template.tail)), cut
