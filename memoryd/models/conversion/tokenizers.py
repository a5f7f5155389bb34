"""The tokenizer of a model's folder, whichever kind it is."""

from pathlib import Path

from memoryd.errors import ModelFileError
from memoryd.models.conversion.byte_pairs import read_byte_pairs
from memoryd.models.conversion.json_files import read_json
from memoryd.models.conversion.plan import Fields
from memoryd.models.conversion.tokenizer_file import TokenizerFile, Unigram, WordPiece
from memoryd.models.conversion.unigram import read_unigram
from memoryd.models.conversion.vocabulary import Vocabulary, table_fields
from memoryd.models.conversion.word_pieces import read_word_list, read_word_pieces


def tokenizer_path(folder: Path) -> Path:
    """Return the file that holds the tokenizer; raise ModelFileError if there is none."""
    for name in ("tokenizer.json", "vocab.txt"):
        if (folder / name).is_file():
            return folder / name
    raise ModelFileError(
        f"{folder / 'tokenizer.json'} is missing: other forms of a tokenizer, such as "
        "sentencepiece.bpe.model, aren't read; transformers writes it, by "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
    )


def read_vocabulary(path: Path) -> Vocabulary:
    """Return the tokenizer in the file at `path`; raise ModelFileError if it can't be had."""
    try:
        return read_word_list(path) if path.suffix == ".txt" else _read_tokenizer_json(path)
    except ValueError as error:
        raise ModelFileError(f"{path} can't be used: {error}") from error


def read_table(path: Path, vocabulary: Vocabulary, rows: int) -> Fields:
    """Return the tokens of the tokenizer at `path` for a model with `rows` of embeddings.

    Raises ModelFileError.
    """
    try:
        return table_fields(vocabulary, rows)
    except ValueError as error:
        raise ModelFileError(f"{path} can't be used: {error}") from error


def _read_tokenizer_json(path: Path) -> Vocabulary:
    tokenizer = read_json(path, TokenizerFile)
    match tokenizer.model:
        case WordPiece() as model:
            return read_word_pieces(tokenizer, model, path)
        case Unigram() as model:
            return read_unigram(tokenizer, model)
        case model:
            return read_byte_pairs(tokenizer, model)
