"""WordPiece, the tokenizer of BERT: words into the longest pieces that the vocabulary has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import gguf

from memoryd.errors import ModelFileError
from memoryd.models.conversion.enclosing import Enclosing, read_enclosing
from memoryd.models.conversion.json_files import FileContent, read_json
from memoryd.models.conversion.tokenizer_file import (
    BertNormalizer,
    BertSplit,
    TokenizerFile,
    WordPiece,
)
from memoryd.models.conversion.vocabulary import (
    WORD_START,
    Keys,
    Token,
    Vocabulary,
    added_types,
    named_fields,
    single_tokens,
)

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class _TokenizerConfig(FileContent):
    """Hold settings of transformers' BertTokenizer, which go before those of tokenizer.json."""

    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: Literal[True] = True


def read_word_pieces(tokenizer: TokenizerFile, model: WordPiece, path: Path) -> Vocabulary:
    """Return the vocabulary of the tokenizer.json at `path`, whose content the others are.

    Raises ModelFileError, and ValueError saying what llama.cpp can't do.
    """
    match tokenizer.normalizers, tokenizer.pre_tokenizers:
        case [BertNormalizer() as normalizer], [BertSplit()]:
            pass
        case _:
            raise ValueError(
                "word pieces can be had with BERT's normalizer and pre-tokenizer alone"
            )
    config_path = path.with_name("tokenizer_config.json")
    config = read_json(config_path, _TokenizerConfig) if config_path.is_file() else None
    said = (config.do_lower_case, config.strip_accents) if config else (None, None)
    ids = model.vocab | {token.content: token.id for token in tokenizer.added_tokens}
    return _vocabulary(
        ids,
        added_types(tokenizer.added_tokens),
        read_enclosing(tokenizer),
        unknown=model.unk_token,
        lowercases=normalizer.lowercase if said[0] is None else said[0],
        strips_accents=normalizer.strip_accents if said[1] is None else said[1],
    )


def read_word_list(path: Path) -> Vocabulary:
    """Return the vocabulary of a vocab.txt, as it was before there was tokenizer.json.

    The settings are those of tokenizer_config.json beside it. Raises ModelFileError, and ValueError
    as `read_word_pieces`.
    """
    try:
        # A token each line, whatever it consists of: splitlines() breaks at U+2028 and others.
        words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} can't be read: {error}") from error
    ids = {word: id_ for id_, word in enumerate(words)}
    if missing := [word for word in _SPECIAL_TOKENS if word not in ids]:
        raise ModelFileError(f"{path} lacks the token {missing[0]}")
    config_file = path.with_name("tokenizer_config.json")
    config = read_json(config_file, _TokenizerConfig)
    separator = (ids["[SEP]"],)
    return _vocabulary(
        ids,
        {ids[word]: gguf.TokenType.CONTROL for word in _SPECIAL_TOKENS},
        Enclosing((ids["[CLS]"],), separator, separator, second_type=1),
        unknown="[UNK]",
        lowercases=config.do_lower_case is not False,
        strips_accents=config.strip_accents,
    )


def _vocabulary(
    ids: Mapping[str, int],
    types: Mapping[int, gguf.TokenType],
    enclosing: Enclosing,
    *,
    unknown: str,
    lowercases: bool,
    strips_accents: bool | None,
) -> Vocabulary:
    before, after = single_tokens(enclosing)
    if before is None or after is None or unknown not in ids:
        raise ValueError("llama.cpp needs a token before, a token after and an unknown one")
    fields = {
        Keys.MODEL: "bert",
        Keys.BOS_ID: before,
        Keys.SEP_ID: after,
        Keys.UNK_ID: ids[unknown],
        "tokenizer.ggml.normalizer.lowercase": lowercases,
        "tokenizer.ggml.normalizer.strip_accents": (
            lowercases if strips_accents is None else strips_accents
        ),
        **named_fields(ids),
    }
    tokens = {
        id_: Token(word if type_ != gguf.TokenType.NORMAL else _marked(word), type_)
        for word, id_ in ids.items()
        for type_ in (types.get(id_, gguf.TokenType.NORMAL),)
    }
    return Vocabulary(tokens, fields, ids, enclosing, lowercases)


def _marked(word: str) -> str:
    """Mark where words start; BERT's vocabulary marks the pieces inside words, by `##`."""
    return word[2:] if word.startswith("##") else WORD_START + word
