"""What the authors' own implementations give for a model's folder: the reference.

Vectors come from sentence-transformers, scores from transformers, tokens from tokenizers; each from
the folder's files alone, one input at a time.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from tiny_models import make_tiny
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    NomicBertConfig,
    PreTrainedModel,
)

Vectors = npt.NDArray[np.float32]


def authors_folder(folder: Path, copy: Path) -> Path:
    """Return a folder with the same model that transformers can read.

    transformers knows NomicBERT under other names in config.json than those which its authors use,
    and Jina's files of XLM-RoBERTa not at all: the tiny one is the other with its tensors renamed.
    """
    config = json.loads((folder / "config.json").read_text())
    if folder.name == "jina-rank":
        return make_tiny("xlm-roberta-rank", copy)
    if config["model_type"] != "nomic_bert":
        return folder
    shutil.copytree(folder, copy)
    NomicBertConfig(
        architectures=["NomicBertModel"],
        vocab_size=config["vocab_size"],
        hidden_size=config["n_embd"],
        num_hidden_layers=config["n_layer"],
        num_attention_heads=config["n_head"],
        intermediate_size=config["n_inner"],
        max_position_embeddings=config["max_trained_positions"],
        layer_norm_eps=config["layer_norm_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": config["rotary_emb_base"]},
    ).save_pretrained(copy)
    return copy


def tokenizer_of(folder: Path) -> Tokenizer:
    """Return the tokenizer as its library reads it."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def vectors_of(folder: Path, inputs: Sequence[Sequence[int]]) -> Vectors:
    """Return the embeddings of token ids, special ones included."""
    model = _sentence_transformer(folder)
    rows = []
    for ids in inputs:
        features = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
        with torch.inference_mode():
            rows.append(model(features)["sentence_embedding"][0].numpy())
    return np.stack(rows)


def scores_of(folder: Path, inputs: Sequence[Sequence[int]]) -> Vectors:
    """Return what a head over whole texts gives each input."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return np.array([_logits(model, ids).item() for ids in inputs], dtype=np.float32)


def chances_of_yes(folder: Path, inputs: Sequence[Sequence[int]]) -> Vectors:
    """Return how likely "yes" follows rather than "no", as Qwen3-Reranker's README computes it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = tokenizer_of(folder)
    answers = [tokenizer.token_to_id("no"), tokenizer.token_to_id("yes")]
    rows = [_logits(model, ids)[-1, answers].softmax(dim=-1)[1].item() for ids in inputs]
    return np.array(rows, dtype=np.float32)


def _logits(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return logits


def save_anew(folder: Path, target: Path) -> Path:
    """Return `target`, where sentence-transformers has saved the model of `folder`."""
    _sentence_transformer(folder).save_pretrained(str(target), create_model_card=False)
    return target


def _sentence_transformer(folder: Path) -> SentenceTransformer:
    exact = {"dtype": torch.float32}
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs=exact)
