import json
from hashlib import sha256
from pathlib import Path

import pytest

from memoryd.errors import ModelNotFoundError
from memoryd.models.catalog import find_entry
from memoryd.models.gallery import GalleryEntry, load_gallery


@pytest.mark.parametrize(
    "name",
    [
        "all-minilm",
        "all-minilm:latest",
        " All-MiniLM\n",
        "all-minilm:L6-v2",
        "all-minilm:22m",
        "all-MiniLM-L6-v2",
        "all-MiniLM-L6-v2:latest",
        "sentence-transformers/all-MiniLM-L6-v2",
    ],
)
def test_a_model_is_found_by_each_name_that_clients_use(name: str) -> None:
    assert find_entry(name).name == "all-minilm"


@pytest.mark.parametrize("name", ["", "all-minilm:33m", "all-minilm:l12-v2", "gpt-4", "../x"])
def test_an_unknown_name_is_reported_as_it_was_asked(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        find_entry(name)
    assert raised.value.model == name


def test_no_two_models_share_a_name() -> None:
    names = [name.lower() for entry in load_gallery() for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))


def test_the_gallery_says_what_the_models_own_files_say(
    entry: GalleryEntry, model_files: Path
) -> None:
    config = json.loads((model_files / "config.json").read_text())
    pooling = json.loads((model_files / "1_Pooling" / "config.json").read_text())
    trained = json.loads((model_files / "sentence_bert_config.json").read_text())
    assert entry.architecture == config["model_type"]
    assert entry.dimensions == config["hidden_size"]
    assert entry.context_tokens == config["max_position_embeddings"]
    assert entry.trained_tokens == trained["max_seq_length"]
    assert pooling[f"pooling_mode_{entry.pooling}_tokens"]
    assert f"license: {entry.license}" in (model_files / "README.md").read_text()
    for file in entry.files:
        content = (model_files / file.path).read_bytes()
        assert (len(content), sha256(content).hexdigest()) == (file.size_bytes, file.sha256)
