"""Tiny models that differ from the others in a setting: longer contexts, larger vocabularies."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tiny_models import make_tiny

from memoryd.models.conversion import convert, describe_folder


def convert_variant(kind: str, folder: Path, **config: Any) -> Path:
    """Return the GGUF of the tiny model `kind` whose config.json says `config`."""
    source = make_tiny(kind, folder / f"{kind}-variant")
    file = source / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    target = folder / f"{kind}-variant.gguf"
    convert(describe_folder(source, kind), source, target, "f32")
    return target


def convert_with_words(kind: str, folder: Path, words: int) -> Path:
    """Return the GGUF of the tiny model `kind` with rows for so many words, most without a text."""
    source = make_tiny(kind, folder / f"{kind}-words")
    file = source / "model.safetensors"
    weights = load_file(file)
    [name] = {"embeddings.word_embeddings.weight", "model.embed_tokens.weight"} & weights.keys()
    random = np.random.default_rng(3)
    weights[name] = random.standard_normal((words, weights[name].shape[1]), dtype=np.float32)
    save_file(weights, file, metadata={"format": "pt"})
    config = source / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": words}))
    target = folder / f"{kind}-words.gguf"
    convert(describe_folder(source, kind), source, target, "f32")
    return target
