from collections.abc import Iterator
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest

from memoryd.errors import ModelFileError
from memoryd.models.convert import convert_bert
from memoryd.models.gallery import GalleryEntry
from memoryd.models.weights import WEIGHT_TYPES, WeightType

# Of sentence-transformers with the same files.
BLUE = [0.010071, -0.001759, 0.050072, 0.046930]
GREEN = [-0.009803, 0.060425]


@pytest.fixture(scope="module", params=WEIGHT_TYPES)
def converted(
    request: pytest.FixtureRequest,
    entry: GalleryEntry,
    model_files: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    weight_type: WeightType = request.param
    target = tmp_path_factory.mktemp("converted") / f"all-minilm-{weight_type}.gguf"
    convert_bert(entry, model_files, target, weight_type)
    return target


@pytest.fixture(scope="module")
def llama(converted: Path) -> Iterator[llama_cpp.Llama]:
    llama = llama_cpp.Llama(
        str(converted), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, verbose=False
    )
    yield llama
    llama.close()


def embed(llama: llama_cpp.Llama, text: str) -> np.ndarray:
    vector = np.array(llama.embed(text), dtype=np.float32)
    return np.divide(vector, np.linalg.norm(vector))


def test_the_converted_model_gives_the_figures_of_sentence_transformers(
    llama: llama_cpp.Llama,
) -> None:
    np.testing.assert_allclose(embed(llama, "why is the sky blue?")[:4], BLUE, atol=0.0015)
    np.testing.assert_allclose(embed(llama, "why is the grass green?")[:2], GREEN, atol=0.0015)


def test_the_converted_vocabulary_splits_words_as_bert_does(llama: llama_cpp.Llama) -> None:
    assert llama.tokenize(b"why is the sky blue?") == [101, 2339, 2003, 1996, 3712, 2630, 1029, 102]
    # Lower case, no accents, "##" pieces: em ##bed ##ding.
    assert llama.tokenize("Émbedding".encode()) == [101, 7861, 8270, 4667, 102]


def test_the_file_says_what_it_was_made_from(converted: Path, entry: GalleryEntry) -> None:
    fields = gguf.GGUFReader(converted).fields
    assert fields["general.name"].contents() == "all-minilm"
    assert fields["general.license"].contents() == "apache-2.0"
    assert fields["general.source.url"].contents().endswith(entry.repository)
    assert fields["memoryd.source.sha256"].contents() == entry.files[-1].sha256


def test_matrices_alone_are_bf16(converted: Path) -> None:
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(converted).tensors}
    matrices = {name for name, type_name in types.items() if type_name == "BF16"}
    assert len(types) == 101
    if converted.stem.endswith("bf16"):
        per_layer = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"]
        layers = {f"blk.{layer}.{matrix}.weight" for layer in range(6) for matrix in per_layer}
        assert matrices == {"token_embd.weight", *layers}
    else:
        assert not matrices


def test_weights_that_cannot_be_read_are_reported(
    entry: GalleryEntry, model_files: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((model_files / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelFileError, match="the weights of all-minilm can't be read"):
        convert_bert(entry, tmp_path, tmp_path / "x.gguf", "f32")
