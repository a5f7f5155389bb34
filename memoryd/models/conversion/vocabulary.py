"""A tokenizer's tokens and settings as GGUF has them.

Sources: llama.cpp's src/llama-vocab.cpp, which reads them, and for each kind its conversion/base.py
and conversion/bert.py.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import gguf

from memoryd.models.conversion.enclosing import Enclosing
from memoryd.models.conversion.plan import Fields
from memoryd.models.conversion.tokenizer_file import AddedToken

Keys = gguf.Keys.Tokenizer

WORD_START = "\u2581"
_PADDING_TOKENS = ("[PAD]", "<pad>")
_MASK_TOKENS = ("[MASK]", "<mask>")
_UNUSED_SCORE = -10_000.0


class Token(NamedTuple):
    """Hold a token as llama.cpp has it."""

    text: str
    type: gguf.TokenType
    score: float = 0.0


@dataclass(frozen=True)
class Vocabulary:
    """Hold a tokenizer: tokens by id, what else GGUF says of it, and ids by the original texts."""

    tokens: Mapping[int, Token]
    fields: Fields
    ids: Mapping[str, int]
    enclosing: Enclosing
    lowercases: bool = False


def added_types(added: list[AddedToken]) -> dict[int, gguf.TokenType]:
    """Return the types of added tokens: only those that aren't special are found in texts."""
    own, special = gguf.TokenType.USER_DEFINED, gguf.TokenType.CONTROL
    return {token.id: special if token.special else own for token in added}


def enclosing_fields(enclosing: Enclosing) -> Fields:
    """Return what says which tokens stand around a text, for all kinds but word pieces.

    Raises ValueError for what llama.cpp has no place for.
    """
    before, after = single_tokens(enclosing)
    fields: Fields = {Keys.ADD_BOS: before is not None, Keys.ADD_EOS: after is not None}
    if before is not None:
        fields[Keys.BOS_ID] = before
    if after is not None:
        fields[Keys.EOS_ID] = after
        if enclosing.between == (after, after):
            fields |= {Keys.SEP_ID: after, Keys.ADD_SEP: True}
    return fields


def single_tokens(enclosing: Enclosing) -> tuple[int | None, int | None]:
    """Return the token before a text and that after it; raise ValueError if there are more."""
    if len(enclosing.before) > 1 or len(enclosing.after) > 1:
        raise ValueError("it puts more than one special token before or after a text")
    return next(iter(enclosing.before), None), next(iter(enclosing.after), None)


def named_fields(ids: Mapping[str, int]) -> Fields:
    """Return the ids of the tokens that are known by their texts."""
    named = ((Keys.PAD_ID, _PADDING_TOKENS), (Keys.MASK_ID, _MASK_TOKENS))
    return {key: ids[name] for key, names in named for name in names if name in ids}


def table_fields(vocabulary: Vocabulary, rows: int) -> Fields:
    """Return the token table with a token for each of `rows` of the embedding matrix.

    Added tokens without a row are left out. Raises ValueError for what llama.cpp would end the
    process over: two tokens alike, or a special token that isn't there.
    """
    tokens = vocabulary.tokens
    homeless = [id_ for id_, token in tokens.items() if id_ >= rows]
    if any(tokens[id_].type == gguf.TokenType.NORMAL for id_ in homeless):
        raise ValueError(f"it has tokens beyond the {rows} of the model")
    named = [value for key, value in vocabulary.fields.items() if key.endswith("_token_id")]
    if any(isinstance(id_, int) and (id_ >= rows or id_ not in tokens) for id_ in named):
        raise ValueError("a special token has no id of the model")
    filled = [tokens.get(id_, _unused(id_)) for id_ in range(rows)]
    [(text, times)] = Counter(token.text for token in filled).most_common(1)
    if times > 1:
        raise ValueError(f"two of its tokens are {text!r} to llama.cpp")
    return {
        Keys.LIST: [token.text for token in filled],
        Keys.TOKEN_TYPE: [int(token.type) for token in filled],
        Keys.SCORES: [token.score for token in filled],
    }


def _unused(id_: int) -> Token:
    return Token(f"[PAD{id_}]", gguf.TokenType.UNUSED, _UNUSED_SCORE)
