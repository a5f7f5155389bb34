"""SentencePiece's unigram model, the tokenizer of XLM-RoBERTa: the likeliest pieces."""

import base64
import binascii

import gguf

from memoryd.models.conversion.enclosing import read_enclosing
from memoryd.models.conversion.plan import Fields
from memoryd.models.conversion.tokenizer_file import (
    Metaspace,
    Normalizer,
    Precompiled,
    Replace,
    Strip,
    TokenizerFile,
    Unigram,
    WhitespaceSplit,
)
from memoryd.models.conversion.vocabulary import (
    WORD_START,
    Keys,
    Token,
    Vocabulary,
    added_types,
    enclosing_fields,
    named_fields,
)


def read_unigram(tokenizer: TokenizerFile, model: Unigram) -> Vocabulary:
    """Return the vocabulary; raise ValueError saying what llama.cpp can't do."""
    ids = {piece: id_ for id_, (piece, _) in enumerate(model.vocab)}
    scores = dict(model.vocab)
    ids |= {token.content: token.id for token in tokenizer.added_tokens}
    types = added_types(tokenizer.added_tokens) | {model.unk_id: gguf.TokenType.UNKNOWN}
    tokens = {
        id_: Token(piece, types.get(id_, gguf.TokenType.NORMAL), scores.get(piece, 0.0))
        for piece, id_ in ids.items()
    }
    enclosing = read_enclosing(tokenizer)
    fields = {
        Keys.MODEL: "t5",
        Keys.UNK_ID: model.unk_id,
        **_space_fields(tokenizer),
        **enclosing_fields(enclosing),
        **named_fields(ids),
    }
    return Vocabulary(tokens, fields, ids, enclosing)


def _space_fields(tokenizer: TokenizerFile) -> Fields:
    """Return how text is normalized and spaces are marked: one space between words, one before."""
    maps = [step for step in tokenizer.normalizers if isinstance(step, Precompiled)]
    merges_spaces = [step for step in tokenizer.normalizers if _merges_spaces(step)]
    match tokenizer.pre_tokenizers:
        case [WhitespaceSplit(), Metaspace()]:
            pass
        case [Metaspace()] if merges_spaces:
            pass
        case _:
            raise ValueError("pieces can be had with SentencePiece's way of marking spaces alone")
    others = [step for step in tokenizer.normalizers if not isinstance(step, Precompiled | Strip)]
    if len(maps) > 1 or len(others) > len(merges_spaces):
        raise ValueError("it normalizes text in a way that llama.cpp doesn't have")
    fields: Fields = {Keys.ADD_PREFIX: True, Keys.REMOVE_EXTRA_WS: True}
    if maps:
        fields[Keys.PRECOMPILED_CHARSMAP] = _decode(maps[0].precompiled_charsmap)
    return fields


def _merges_spaces(step: Normalizer) -> bool:
    return (
        isinstance(step, Replace)
        and step.pattern.Regex == " {2,}"
        and step.content in (" ", WORD_START)
    )


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its map of characters isn't base64: {error}") from error
