"""tokenizer.json, the file of the `tokenizers` library, as far as llama.cpp can do what it says.

The format: the library's tokenizers/src, where each part is serialized with its type. A part of a
type that isn't here, or set up otherwise, can't be followed.
"""

from typing import Annotated, Literal

from pydantic import Field

from memoryd.models.conversion.json_files import FileContent, TokenId


class AddedToken(FileContent):
    """Describe a token that is found before text is split."""

    id: TokenId
    content: str
    special: bool = False


class Pattern(FileContent):
    """Hold what is searched for."""

    Regex: str | None = None
    String: str | None = None


class BertNormalizer(FileContent):
    """Clean text, set ideographs apart, and perhaps lower letters and strip accents."""

    type: Literal["BertNormalizer"]
    clean_text: Literal[True]
    handle_chinese_chars: Literal[True]
    strip_accents: bool | None
    lowercase: bool


class Precompiled(FileContent):
    """Replace characters by SentencePiece's map, which is given as base64."""

    type: Literal["Precompiled"]
    precompiled_charsmap: str


class Replace(FileContent):
    """Replace what matches."""

    type: Literal["Replace"]
    pattern: Pattern
    content: str


class Strip(FileContent):
    """Remove spaces at the ends."""

    type: Literal["Strip"]


class ComposeCharacters(FileContent):
    """Compose letters and accents, as Unicode's NFC."""

    type: Literal["NFC"]


class NormalizerSequence(FileContent):
    """Do one after the other."""

    type: Literal["Sequence"]
    normalizers: list["Normalizer"]


Normalizer = Annotated[
    BertNormalizer | Precompiled | Replace | Strip | ComposeCharacters | NormalizerSequence,
    Field(discriminator="type"),
]


class BertSplit(FileContent):
    """Split at spaces and around punctuation."""

    type: Literal["BertPreTokenizer"]


class WhitespaceSplit(FileContent):
    """Split at spaces."""

    type: Literal["WhitespaceSplit"]


class Metaspace(FileContent):
    """Mark spaces, and the beginning of a text, by U+2581."""

    type: Literal["Metaspace"]
    replacement: Literal["\u2581"]
    prepend_scheme: Literal["always", "first"] = "always"
    add_prefix_space: Literal[True] = True


class Split(FileContent):
    """Split around what matches."""

    type: Literal["Split"]
    pattern: Pattern
    behavior: str
    invert: Literal[False]


class ByteLevelSplit(FileContent):
    """Write each byte as a letter."""

    type: Literal["ByteLevel"]
    add_prefix_space: Literal[False]
    use_regex: Literal[False]


class PreTokenizerSequence(FileContent):
    """Do one after the other."""

    type: Literal["Sequence"]
    pretokenizers: list["PreTokenizer"]


PreTokenizer = Annotated[
    BertSplit | WhitespaceSplit | Metaspace | Split | ByteLevelSplit | PreTokenizerSequence,
    Field(discriminator="type"),
]


class TemplateToken(FileContent):
    """Name a text (A or B) or a special token, and give its token type."""

    id: str
    type_id: int = 0


class TemplateStep(FileContent):
    """Put a text or a special token."""

    Sequence: TemplateToken | None = None
    SpecialToken: TemplateToken | None = None


class SpecialTokenIds(FileContent):
    """Hold the ids that a special token of a template stands for."""

    ids: list[TokenId]


class Template(FileContent):
    """Put special tokens around a text and around two."""

    type: Literal["TemplateProcessing"]
    single: list[TemplateStep]
    pair: list[TemplateStep]
    special_tokens: dict[str, SpecialTokenIds]


class EnclosingTokens(FileContent):
    """Put `cls` before the texts and `sep` after each; between two, RoBERTa has it twice."""

    type: Literal["BertProcessing", "RobertaProcessing"]
    cls: tuple[str, TokenId]
    sep: tuple[str, TokenId]


class ByteLevelOffsets(FileContent):
    """Change no tokens."""

    type: Literal["ByteLevel"]


class PostProcessorSequence(FileContent):
    """Do one after the other."""

    type: Literal["Sequence"]
    processors: list["PostProcessor"]


PostProcessor = Annotated[
    Template | EnclosingTokens | ByteLevelOffsets | PostProcessorSequence,
    Field(discriminator="type"),
]


class WordPiece(FileContent):
    """Split words into the longest known pieces."""

    type: Literal["WordPiece"]
    unk_token: str
    continuing_subword_prefix: Literal["##"]
    vocab: dict[str, TokenId]


class Unigram(FileContent):
    """Split text into the likeliest pieces; `vocab` has each with its logarithmic likelihood."""

    type: Literal["Unigram"]
    unk_id: TokenId
    vocab: list[tuple[str, Annotated[float, Field(allow_inf_nan=False)]]]
    byte_fallback: Literal[False] = False


class BytePairs(FileContent):
    """Merge neighbors in the order of `merges`."""

    type: Literal["BPE"]
    unk_token: str | None = None
    dropout: Literal[0] | None = None
    continuing_subword_prefix: Literal[""] | None = None
    end_of_word_suffix: Literal[""] | None = None
    byte_fallback: bool = False
    ignore_merges: Literal[False] = False
    vocab: dict[str, TokenId]
    merges: list[tuple[str, str] | str]


class TokenizerFile(FileContent):
    """Hold a tokenizer.json."""

    added_tokens: list[AddedToken] = Field(default=[])
    normalizer: Normalizer | None = None
    pre_tokenizer: PreTokenizer | None = None
    post_processor: PostProcessor | None = None
    model: Annotated[WordPiece | Unigram | BytePairs, Field(discriminator="type")]

    @property
    def normalizers(self) -> list[Normalizer]:
        """Return all steps of normalization."""
        if isinstance(self.normalizer, NormalizerSequence):
            return self.normalizer.normalizers
        return [self.normalizer] if self.normalizer else []

    @property
    def pre_tokenizers(self) -> list[PreTokenizer]:
        """Return all steps that split text before the model does."""
        if isinstance(self.pre_tokenizer, PreTokenizerSequence):
            return self.pre_tokenizer.pretokenizers
        return [self.pre_tokenizer] if self.pre_tokenizer else []

    @property
    def enclosing(self) -> list[Template | EnclosingTokens]:
        """Return all steps that put special tokens around texts."""
        post_processor = self.post_processor
        steps = (
            post_processor.processors
            if isinstance(post_processor, PostProcessorSequence)
            else [post_processor]
        )
        return [step for step in steps if isinstance(step, Template | EnclosingTokens)]
