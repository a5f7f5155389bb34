"""Byte pair encoding: neighbors are merged, the pair first that was learned first.

Two kinds: over bytes that stand as letters, as Qwen's, and over characters, as Gemma's, where
SentencePiece learned the pairs and bytes stand in for unknown characters.
"""

import gguf

from memoryd.models.conversion.enclosing import read_enclosing
from memoryd.models.conversion.tokenizer_file import (
    ByteLevelSplit,
    BytePairs,
    ComposeCharacters,
    Replace,
    Split,
    TokenizerFile,
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

# By the pattern that splits text before bytes are merged: its name in llama.cpp.
_SPLIT_NAMES = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def read_byte_pairs(tokenizer: TokenizerFile, model: BytePairs) -> Vocabulary:
    """Return the vocabulary; raise ValueError saying what llama.cpp can't do."""
    if model.byte_fallback:
        return _read_sentencepiece(tokenizer, model)
    return _read_byte_level(tokenizer, model)


def _read_byte_level(tokenizer: TokenizerFile, model: BytePairs) -> Vocabulary:
    match tokenizer.pre_tokenizers:
        case [Split(pattern=pattern, behavior="Isolated"), ByteLevelSplit()]:
            split_name = _SPLIT_NAMES.get(pattern.Regex or "")
        case _:
            split_name = None
    if split_name is None:
        raise ValueError(f"text is split otherwise than by {', '.join(_SPLIT_NAMES.values())}")
    if not all(isinstance(step, ComposeCharacters) for step in tokenizer.normalizers):
        raise ValueError("it normalizes text in a way that llama.cpp doesn't have")
    ids = model.vocab | {token.content: token.id for token in tokenizer.added_tokens}
    types = added_types(tokenizer.added_tokens)
    enclosing = read_enclosing(tokenizer)
    fields = {
        Keys.MODEL: "gpt2",
        Keys.PRE: split_name,
        Keys.MERGES: [f"{left} {right}" for left, right in _merges(model)],
        **enclosing_fields(enclosing),
        **named_fields(ids),
    }
    tokens = {id_: Token(text, types.get(id_, gguf.TokenType.NORMAL)) for text, id_ in ids.items()}
    return Vocabulary(tokens, fields, ids, enclosing)


def _read_sentencepiece(tokenizer: TokenizerFile, model: BytePairs) -> Vocabulary:
    match tokenizer.normalizers, tokenizer.pre_tokenizers:
        # The splitting does nothing, since no space is left.
        case [Replace(content="\u2581") as spaces], [] | [Split()] if spaces.pattern.String == " ":
            pass
        case _:
            raise ValueError("pieces can be had with SentencePiece's way of marking spaces alone")
    if any(token not in model.vocab for token in _BYTE_TOKENS):
        raise ValueError("it has no token for some of the bytes")
    ids = model.vocab | {token.content: token.id for token in tokenizer.added_tokens}
    if model.unk_token not in ids:
        raise ValueError("it has no token for unknown characters")
    enclosing = read_enclosing(tokenizer)
    fields = {
        Keys.MODEL: "llama",
        Keys.ADD_PREFIX: False,
        Keys.UNK_ID: ids[model.unk_token],
        **enclosing_fields(enclosing),
        **named_fields(ids),
    }
    return Vocabulary(_pieces(tokenizer, model, ids), fields, ids, enclosing)


def _pieces(tokenizer: TokenizerFile, model: BytePairs, ids: dict[str, int]) -> dict[int, Token]:
    """Return the tokens with scores by which llama.cpp merges in the order of `merges`."""
    types = dict.fromkeys((ids[token] for token in _BYTE_TOKENS), gguf.TokenType.BYTE)
    types |= added_types(tokenizer.added_tokens)
    types |= {ids[model.unk_token or ""]: gguf.TokenType.UNKNOWN}
    merged = dict.fromkeys(left + right for left, right in _merges(model))
    scores = {piece: -float(rank) for rank, piece in enumerate(merged)}
    own = gguf.TokenType.USER_DEFINED
    return {
        # Added tokens are looked for in the text, before its spaces are marked.
        id_: Token(piece.replace(WORD_START, " "), own)
        if types.get(id_) == own
        else Token(piece, types.get(id_, gguf.TokenType.NORMAL), scores.get(piece, 0.0))
        for piece, id_ in ids.items()
    }


def _merges(model: BytePairs) -> list[tuple[str, str]]:
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else merge for merge in model.merges]
    merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if len(merges) < len(pairs) or any(" " in part for merge in merges for part in merge):
        raise ValueError("its merges aren't pairs of pieces without spaces")
    return merges
