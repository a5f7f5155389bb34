import json
import os
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from memoryd.errors import ModelFileError, ModelNotFoundError
from memoryd.models.catalog import OPENAI_NAMES, find_entry, list_entries
from memoryd.models.gallery import GalleryEntry, load_gallery

GALLERY_TABLE = '[[models]]\nname = "{}"\nrepository = "me/mine"\n'
MODEL_FILE = "name: {}\nembeddings: true\nparameters: {{model: {}}}\n"


def names_in(models_dir: Path) -> list[str]:
    """Return the names of the models that only the directory has."""
    return [entry.name for entry in list_entries(models_dir) if entry.origin]


def is_found(name: str, models_dir: Path) -> bool:
    try:
        find_entry(name, models_dir)
    except ModelNotFoundError:
        return False
    return True


def leave_it(models_dir: Path) -> None:
    """Let the next look come while the file system may still give a change the same time."""


def let_it_settle(models_dir: Path) -> None:
    """Give the directory and its files the times of things that nobody has touched for long."""
    for path in (*models_dir.iterdir(), models_dir):
        os.utime(path, (1_000_000, 1_000_000))


@pytest.mark.parametrize(
    "name",
    [
        "all-minilm",
        "all-minilm:latest",
        "all-minilm:LATEST",
        " All-MiniLM\n",
        "all-minilm:L6-v2",
        "all-minilm:22m",
        "all-MiniLM-L6-v2",
        "all-MiniLM-L6-v2:latest",
        "sentence-transformers/all-MiniLM-L6-v2",
        "library/all-minilm",
        "registry.ollama.ai/library/all-minilm:latest",
    ],
)
def test_a_model_is_found_by_each_name_that_clients_use(name: str, tmp_path: Path) -> None:
    assert find_entry(name, tmp_path).name == "all-minilm"


@pytest.mark.parametrize(
    "name", ["", "all-minilm:90m", "gpt-4", "../x", "..", "a b", "all-minilm:", *OPENAI_NAMES]
)
def test_an_unknown_name_is_reported_as_it_was_asked(name: str, tmp_path: Path) -> None:
    (tmp_path / "a b.gguf").touch()
    with pytest.raises(ModelNotFoundError) as raised:
        find_entry(name, tmp_path)
    assert raised.value.model == name


def test_a_directory_that_is_not_there_has_no_models(tmp_path: Path) -> None:
    assert find_entry("all-minilm", tmp_path / "none").name == "all-minilm"
    assert list_entries(tmp_path / "none") == list(load_gallery())


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


def test_a_plain_file_is_found_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "My-Model.Q8_0.GGUF"
    path.touch()
    for name in ("my-model.q8_0", "My-Model.Q8_0:latest", "my-model.q8_0.gguf"):
        assert find_entry(name, tmp_path).path == path
    assert names_in(tmp_path) == ["My-Model.Q8_0"]


@pytest.mark.parametrize(
    "name",
    [
        "all-minilm-bf16.gguf",
        "all-minilm-f32.gguf",
        "nomic-embed-text.gguf",
        ".hidden.gguf",
        "x.gguf.part",
        "x.json",
        "x.bin",
        "-x.gguf",
    ],
)
def test_what_memoryd_keeps_there_is_no_model_of_its_own(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert names_in(tmp_path) == []
    assert not is_found(name, tmp_path)


def test_the_files_of_a_described_model_are_no_models_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MODEL_FILE.format("mine", "org/model"))
    (tmp_path / "other.yaml").write_text(MODEL_FILE.format("other", "other-file.gguf"))
    (tmp_path / "other-file.gguf").touch()
    (tmp_path / f"{find_entry('mine', tmp_path).stem}-bf16.gguf").touch()
    assert names_in(tmp_path) == ["mine", "other"]


def add_model_file(models_dir: Path) -> None:
    (models_dir / "model.yaml").write_text(MODEL_FILE.format("all-minilm", "x.gguf"))
    (models_dir / "x.gguf").touch()


def add_gallery_file(models_dir: Path) -> None:
    (models_dir / "gallery.toml").write_text(GALLERY_TABLE.format("All-MiniLM"))


def test_model_files_come_before_the_users_gallery_and_that_before_memoryds(
    tmp_path: Path,
) -> None:
    assert find_entry("all-minilm", tmp_path).origin is None
    add_gallery_file(tmp_path)
    assert find_entry("all-minilm", tmp_path).repository == "me/mine"
    add_model_file(tmp_path)
    assert find_entry("all-minilm", tmp_path).path == tmp_path / "x.gguf"
    assert names_in(tmp_path) == ["all-minilm"]


def test_a_plain_file_comes_before_the_users_gallery(tmp_path: Path) -> None:
    (tmp_path / "gallery.toml").write_text(GALLERY_TABLE.format("mine"))
    assert find_entry("mine", tmp_path).repository == "me/mine"
    (tmp_path / "mine.gguf").touch()
    assert find_entry("mine", tmp_path).path == tmp_path / "mine.gguf"


def test_a_model_that_takes_a_name_takes_the_place_of_all_the_models_names(
    tmp_path: Path,
) -> None:
    add_gallery_file(tmp_path)
    assert not is_found("all-MiniLM-L6-v2", tmp_path)
    names = [entry.name.lower() for entry in list_entries(tmp_path)]
    assert len(names) == len(set(names)) == len(load_gallery())


def test_a_model_that_takes_an_alias_takes_that_name_alone(tmp_path: Path) -> None:
    (tmp_path / "gallery.toml").write_text(GALLERY_TABLE.format("all-minilm:22m"))
    assert find_entry("all-minilm:22m", tmp_path).repository == "me/mine"
    assert find_entry("all-minilm:l6-v2", tmp_path).origin is None


@pytest.mark.parametrize("name", OPENAI_NAMES)
def test_a_user_may_have_a_model_of_openais_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "gallery.toml").write_text(GALLERY_TABLE.format(name))
    assert find_entry(name, tmp_path).name == name


def test_a_broken_gallery_file_breaks_only_the_models_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "gallery.toml").write_text(GALLERY_TABLE.format("all-minilm") + "broken\n")
    with pytest.raises(ModelFileError, match=r"gallery\.toml: isn't TOML: .*line 4"):
        find_entry("all-minilm", tmp_path)
    assert find_entry("bge-m3", tmp_path)
    [faulty] = [entry for entry in list_entries(tmp_path) if entry.fault]
    assert faulty.name == "all-minilm"


def test_a_directory_that_cannot_be_listed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ModelFileError, match=r"cannot read the models directory .*loop: "):
        find_entry("all-minilm", tmp_path / "loop")


@pytest.mark.parametrize("wait", [leave_it, let_it_settle])
def test_what_changes_in_the_directory_is_seen_at_once(
    tmp_path: Path, wait: Callable[[Path], None]
) -> None:
    path, target = tmp_path / "model.yaml", tmp_path / "x.gguf"
    seen = []
    for change in (
        lambda: path.write_text(MODEL_FILE.format("one", "x.gguf")),
        target.touch,
        lambda: path.write_text(MODEL_FILE.format("two", "x.gguf")),
        path.unlink,
        target.unlink,
    ):
        change()
        wait(tmp_path)
        seen.append(names_in(tmp_path))
    assert seen == [["one"], ["one"], ["two"], ["x"], []]


@pytest.mark.parametrize("wait", [leave_it, let_it_settle])
def test_a_changed_gallery_file_is_seen_at_once(
    tmp_path: Path, wait: Callable[[Path], None]
) -> None:
    for name in ("one", "two"):
        (tmp_path / "gallery.toml").write_text(GALLERY_TABLE.format(name))
        wait(tmp_path)
        assert names_in(tmp_path) == [name]


def test_a_change_that_leaves_the_time_as_it_was_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    for name in ("one", "two"):
        path.write_text(MODEL_FILE.format(name, "x.gguf"))
        let_it_settle(tmp_path)
        assert names_in(tmp_path) == [name]


def test_a_lookup_in_a_large_directory_costs_little(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}.gguf").touch()
        if number < 20:
            text = MODEL_FILE.format(f"model-{number}", f"{number}.gguf")
            (tmp_path / f"{number}.yaml").write_text(text)
    let_it_settle(tmp_path)
    find_entry("model-7", tmp_path)
    began = time.process_time()
    for _ in range(200):
        find_entry("model-7", tmp_path)
    assert (time.process_time() - began) / 200 < 0.001
