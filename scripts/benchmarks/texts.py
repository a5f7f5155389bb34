"""Texts of a wanted length, cut from SciFact or, without it, from this project's own words."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.data import locate, read_abstracts
from memoryd.embeddings.model import EmbeddingModel


@dataclass(frozen=True)
class Kind:
    """Say how long texts are, and how many make about a second of work."""

    name: str
    tokens: int
    """Per text on average, special ones included."""
    count: int


SHORT = Kind("short", 24, 420)
MID = Kind("mid", 160, 64)
LONG = Kind("long", 490, 22)
KINDS = (SHORT, MID, LONG)


def has_scifact() -> bool:
    """Say whether the texts are SciFact's."""
    return locate("scifact", "corpus.jsonl.gz").is_file()


def cut_texts(model: EmbeddingModel, kind: Kind, count: int) -> list[str]:
    """Cut `count` texts whose lengths vary by a third around what the kind says."""
    texts: list[str] = []
    words = _words()
    while len(texts) < count:
        wanted = kind.tokens - model.special_tokens + (len(texts) % 3 - 1) * kind.tokens // 6
        wanted = min(wanted, model.max_tokens - model.special_tokens)
        text, tokens = [], 0
        while tokens < wanted:
            word = next(words)
            text.append(word)
            tokens += model.count_tokens(word)
        texts.append(" ".join(text if tokens == wanted else text[:-1]))
    return texts


def _words() -> Iterator[str]:
    for text in itertools.cycle(_passages()):
        yield from re.findall(r"\S+", text)


@cache
def _passages() -> list[str]:
    if has_scifact():
        return [abstract["text"] for abstract in read_abstracts()]
    root = Path(__file__).parents[2]
    return [path.read_text() for path in sorted(root.glob("docs/*.md"))] + [
        path.read_text() for path in sorted(root.glob("memoryd/**/*.py"))
    ]
