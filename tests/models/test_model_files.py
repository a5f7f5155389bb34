import re
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from memoryd.errors import ModelFileError, ModelNotFoundError
from memoryd.models.catalog import find_entry, list_entries
from memoryd.models.gallery import GalleryEntry, Kind, SourceFile
from memoryd.models.model_files import check_against_file, read_model_files, write_model_file

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "models.md"
MODEL_FILE = """
name: text-embedding-ada-002
backend: llama-cpp
embeddings: true
context_size: 512
parameters:
  model: bert.gguf
"""


def write(folder: Path, text: str, name: str = "embed.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def find(folder: Path, text: str, name: str = "m") -> GalleryEntry:
    """Return the model of a file that says `text` after its name."""
    write(folder, f"name: {name}\n{text}\n")
    return find_entry(name, folder)


def fault_of(folder: Path, text: str, name: str = "m") -> str:
    with pytest.raises(ModelFileError) as raised:
        find(folder, text, name)
    assert str(folder / "embed.yaml") in raised.value.message
    return raised.value.message


def test_a_model_file_of_localai_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL_FILE)
    (tmp_path / "bert.gguf").touch()
    entry = find_entry("text-embedding-ada-002", tmp_path)
    assert (entry.kind, entry.context_tokens) == ("embedding", 512)
    assert (entry.path, entry.origin) == (tmp_path / "bert.gguf", path)


def test_the_model_files_of_the_documentation_are_right(tmp_path: Path) -> None:
    (tmp_path / "my-model.gguf").touch()
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    for number, block in enumerate(blocks):
        write(tmp_path, block, f"{number}.yaml")
    assert [entry.fault for entry in read_model_files(tmp_path)] == ["", ""]


def test_the_many_other_keys_of_localai_are_ignored(tmp_path: Path) -> None:
    text = MODEL_FILE + "threads: 8\nf16: true\ntemplate: {chat: '{{.Input}}'}\nstopwords: ['x']\n"
    write(tmp_path, text)
    (tmp_path / "bert.gguf").touch()
    assert find_entry("text-embedding-ada-002", tmp_path).context_tokens == 512


def test_a_file_without_a_name_is_called_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "bert.gguf").touch()
    write(tmp_path, "embeddings: true\nparameters: {model: bert.gguf}", "mine.yml")
    assert find_entry("mine", tmp_path).path == tmp_path / "bert.gguf"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("embeddings: true", "embedding"),
        ("embeddings: yes", "embedding"),
        ("known_usecases: [embeddings]", "embedding"),
        ("reranking: true", "reranker"),
        ("embeddings: true\nreranking: true", "reranker"),
        ("known_usecases: [rerank]", "reranker"),
        ("backend: rerankers", "reranker"),
    ],
)
def test_what_a_model_is_for_is_said_in_the_ways_of_localai(
    tmp_path: Path, text: str, kind: Kind
) -> None:
    assert find(tmp_path, f"{text}\nparameters: {{model: all-MiniLM-L6-v2}}").kind == kind


@pytest.mark.parametrize("text", ["embeddings: false", "embeddings: no", "threads: 4"])
def test_a_model_that_is_not_for_embeddings_says_so(tmp_path: Path, text: str) -> None:
    message = fault_of(tmp_path, f"{text}\nparameters: {{model: bert.gguf}}")
    assert "embeddings: is " in message
    assert "write `embeddings: true`" in message


def test_the_pooling_of_localais_options_is_taken(tmp_path: Path) -> None:
    text = "embeddings: true\nparameters: {model: all-MiniLM-L6-v2}\noptions: ['pooling_type:cls']"
    assert find(tmp_path, text).pooling == "cls"


def test_a_pooling_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    text = "embeddings: true\nparameters: {model: x.gguf}\noptions: [pooling:max]"
    assert "options: pooling:max must be one of none, mean, cls, last" in fault_of(tmp_path, text)


def test_the_section_memoryd_adds_what_localai_has_no_key_for(tmp_path: Path) -> None:
    (tmp_path / "bert.gguf").touch()
    text = """
embeddings: true
parameters: {model: bert.gguf}
memoryd:
  pooling: last
  query_prefix: "Instruct: {instruction}\\nQuery:"
  instruction: Find it
  document_prefix: "passage: "
  dimensions: 1024
  trained_dimensions: [1024, 256]
  description: My model
  aliases: [short]
"""
    entry = find(tmp_path, text)
    assert entry == find_entry("short", tmp_path)
    assert (entry.pooling, entry.dimensions) == ("last", 1024)
    assert (entry.query_prefix, entry.instruction) == ("Instruct: {instruction}\nQuery:", "Find it")
    assert entry.trained_dimensions == (1024, 256)
    assert (entry.document_prefix, entry.description) == ("passage: ", "My model")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("poolling: mean", "memoryd: poolling: isn't a key that memoryd knows"),
        ("dimensions: '64'", "memoryd: dimensions: Input should be a valid integer"),
        ("pooling: max", "memoryd: pooling: Input should be 'none'"),
        ("context_tokens: 5", "memoryd.context_tokens: isn't a key there; `context_size` says it"),
        ("name: x", "memoryd.name: isn't a key there; `name` says it"),
        ("stored_as: all-minilm", "memoryd: stored_as: isn't a key that memoryd knows"),
        ("1: 2", "memoryd: 1: isn't a key that memoryd knows"),
        ("aliases: !!set {a, b}", "memoryd: aliases: Input should be a valid array"),
    ],
)
def test_a_wrong_key_of_the_section_memoryd_is_named(tmp_path: Path, line: str, said: str) -> None:
    text = f"embeddings: true\nparameters: {{model: x.gguf}}\nmemoryd:\n  {line}"
    assert said in fault_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("embeddings: true", "parameters.model: is missing"),
        ("embeddings: true\nparameters: [a]", "parameters: must be a mapping"),
        ("embeddings: true\nparameters: {model: 7}", "parameters.model: is missing"),
        ("embeddings: true\nmemoryd: [a]", "memoryd: must be a mapping"),
        ("embeddings: true\ncontext_size: big", "context_size: 'big' must be a number of tokens"),
        ("embeddings: true\ncontext_size: -1", "context_size: -1 must be a number of tokens"),
        ("embeddings: true\ncontext_size: true", "context_size: True must be a number"),
    ],
)
def test_a_wrong_key_of_localai_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in fault_of(tmp_path, text)


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "name: [a]\nembeddings: true", "mine.yaml")
    with pytest.raises(ModelFileError, match=r"mine\.yaml: name: \['a'\] can't be a model's name"):
        find_entry("mine", tmp_path)


def test_a_wrong_file_name_lists_the_files_that_are_there(tmp_path: Path) -> None:
    for name in ("one.gguf", "two.GGUF", "other.txt", ".hidden.gguf"):
        (tmp_path / name).touch()
    message = fault_of(tmp_path, "embeddings: true\nparameters: {model: onne.gguf}")
    assert f"parameters.model: there is no file {tmp_path / 'onne.gguf'}" in message
    assert message.endswith("the .gguf files there are: one.gguf, two.GGUF")


def test_a_list_of_many_files_is_cut(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.gguf").touch()
    message = fault_of(tmp_path, "embeddings: true\nparameters: {model: x.gguf}")
    assert message.endswith("18.gguf, 19.gguf and 10 more")


def test_a_file_that_comes_later_is_found_then(tmp_path: Path) -> None:
    text = "embeddings: true\nparameters: {model: folder/x.gguf}"
    assert "there is no file" in fault_of(tmp_path, text)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.gguf").touch()
    assert find_entry("m", tmp_path).path == tmp_path / "folder" / "x.gguf"


def test_a_link_may_lead_out_of_the_directory(tmp_path: Path) -> None:
    models_dir = tmp_path / "models"
    models_dir.mkdir()
    (tmp_path / "large.gguf").touch()
    (models_dir / "x.gguf").symlink_to(tmp_path / "large.gguf")
    assert find(models_dir, "embeddings: true\nparameters: {model: x.gguf}").path


@pytest.mark.parametrize("model", ["../x.gguf", "/etc/passwd", "a/../../x.gguf"])
def test_a_path_out_of_the_directory_is_refused(tmp_path: Path, model: str) -> None:
    (tmp_path.parent / "x.gguf").touch()
    message = fault_of(tmp_path, f"embeddings: true\nparameters: {{model: {model}}}")
    assert "outside of the models directory; `memoryd models import`" in message


def test_a_file_of_bert_cpp_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ggml-model-q4_0.bin").touch()
    text = "backend: bert-embeddings\nembeddings: true\nparameters: {model: ggml-model-q4_0.bin}"
    assert "bert.cpp's old format" in fault_of(tmp_path, text)


def test_a_name_of_the_gallery_brings_what_the_gallery_knows(tmp_path: Path) -> None:
    text = "backend: sentencetransformers\nembeddings: true\nparameters: {model: all-MiniLM-L6-v2}"
    entry = find(tmp_path, text, "text-embedding-ada-002")
    known = find_entry("all-minilm", tmp_path)
    assert entry.name == "text-embedding-ada-002"
    assert (entry.repository, entry.files) == (known.repository, known.files)
    assert entry.stem == known.stem


@pytest.mark.parametrize(
    ("model", "repository", "gguf"),
    [
        ("huggingface://org/repo/a/file.gguf", "org/repo", "a/file.gguf"),
        ("https://huggingface.co/org/repo/resolve/main/file.gguf", "org/repo", "file.gguf"),
        ("org/model", "org/model", None),
        ("paraphrase-MiniLM-L3-v2", "sentence-transformers/paraphrase-MiniLM-L3-v2", None),
    ],
)
def test_a_model_of_the_hub_is_fetched_from_there(
    tmp_path: Path, model: str, repository: str, gguf: str | None
) -> None:
    text = f"backend: sentencetransformers\nembeddings: true\nparameters: {{model: {model}}}"
    entry = find(tmp_path, text)
    assert (entry.repository, entry.gguf, entry.path) == (repository, gguf, None)


def test_models_of_one_name_from_two_places_have_files_of_their_own(tmp_path: Path) -> None:
    text = "embeddings: true\nparameters: {{model: huggingface://org/{}/m.gguf}}"
    assert find(tmp_path, text.format("a")).stem != find(tmp_path, text.format("b")).stem


def test_a_url_is_not_fetched(tmp_path: Path) -> None:
    text = "embeddings: true\nparameters: {model: https://example.org/x.gguf}"
    assert "run `memoryd models import https://example.org/x.gguf`" in fault_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "isn't YAML: "),
        ("embeddings: true\n\tx: 1", "line 3: isn't YAML: "),
        ("name: m", "isn't YAML: found duplicate key"),
        ("a: !python x", "line 2: isn't YAML: could not determine a constructor"),
        ("a: 2024-99-99", "isn't YAML: month must be in 1..12"),
        ("a: " + "9" * 5000, "isn't YAML: Exceeds the limit"),
        ("a: \x00", "isn't YAML: unacceptable character"),
        ("? {a: b}\n: c", "isn't YAML: found unhashable key"),
        ("a: " + "[" * 60_000, "line 2: has too many levels or aliases"),
        ("a: '" + "x" * 70_000 + "'", "is longer than the 65,536 bytes"),
        ("---\nb: 1", "isn't YAML: but found another document"),
    ],
)
def test_what_is_not_yaml_is_reported_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in fault_of(tmp_path, text)


@pytest.mark.parametrize("text", ["- name: m\n", "m", "", "7"])
def test_a_file_that_is_no_mapping_is_reported(tmp_path: Path, text: str) -> None:
    write(tmp_path, text, "m.yaml")
    with pytest.raises(ModelFileError, match=r"m\.yaml: line 1: must be a mapping"):
        find_entry("m", tmp_path)


def test_a_file_of_few_bytes_cannot_keep_memoryd_busy(tmp_path: Path) -> None:
    lines = ["z: &a0 {k: v}"]
    lines += [
        f"k{level}: &a{level + 1} {{<<: [*a{level}, *a{level}, *a{level}, *a{level}]}}"
        for level in range(12)
    ]
    began = time.perf_counter()
    assert "too many levels or aliases" in fault_of(tmp_path, "\n".join(lines))
    assert time.perf_counter() - began < 1


def test_merge_keys_are_followed(tmp_path: Path) -> None:
    text = "common: &c {model: all-MiniLM-L6-v2}\nembeddings: true\nparameters: {<<: *c}"
    assert find(tmp_path, text).stored_as == "all-minilm"


def test_a_broken_file_breaks_no_other_model(tmp_path: Path) -> None:
    write(tmp_path, "name: broken\n[", "a.yaml")
    write(tmp_path, MODEL_FILE, "b.yaml")
    (tmp_path / "bert.gguf").touch()
    assert find_entry("text-embedding-ada-002", tmp_path)
    assert find_entry("all-minilm", tmp_path)
    faults = {entry.name: entry.fault for entry in list_entries(tmp_path) if entry.fault}
    assert list(faults) == ["broken"]
    assert f"{tmp_path / 'a.yaml'}: line 2: " in faults["broken"]


def test_a_missing_file_is_told_by_the_list_too(tmp_path: Path) -> None:
    write(tmp_path, MODEL_FILE)
    [faulty] = [entry for entry in list_entries(tmp_path) if entry.fault]
    assert faulty.name == "text-embedding-ada-002"
    assert "there is no file" in faulty.fault


def test_two_files_of_one_name_are_both_refused(tmp_path: Path) -> None:
    (tmp_path / "bert.gguf").touch()
    write(tmp_path, MODEL_FILE, "a.yaml")
    write(tmp_path, MODEL_FILE.replace("text-", "Text-"), "b.yaml")
    with pytest.raises(ModelFileError, match=r"a\.yaml: name: b\.yaml defines") as raised:
        find_entry("text-embedding-ada-002", tmp_path)
    assert "'text-embedding-ada-002' too" in raised.value.message
    assert [bool(entry.fault) for entry in read_model_files(tmp_path)] == [True, True]


def test_hidden_files_and_folders_are_no_models(tmp_path: Path) -> None:
    write(tmp_path, MODEL_FILE, "._gallery_m.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert [entry.name for entry in read_model_files(tmp_path)] == ["folder"]
    with pytest.raises(ModelNotFoundError):
        find_entry("text-embedding-ada-002", tmp_path)
    with pytest.raises(ModelFileError, match=r"folder\.yaml: can't be read: Is a directory"):
        find_entry("folder", tmp_path)


def described(folder: Path, more: str = "") -> GalleryEntry:
    (folder / "bert.gguf").touch()
    write(folder, MODEL_FILE + more)
    return find_entry("text-embedding-ada-002", folder)


def test_a_description_that_fits_the_file_passes(tmp_path: Path) -> None:
    entry = described(tmp_path, "memoryd: {dimensions: 384}")
    check_against_file(entry, 512, 384, "embedding")


def test_a_context_above_the_models_is_refused(tmp_path: Path) -> None:
    entry = described(tmp_path)
    with pytest.raises(ModelFileError) as raised:
        check_against_file(entry, 256, 384, "embedding")
    assert raised.value.message == (
        f"{tmp_path / 'embed.yaml'}: context_size is 512, but the model was trained for 256 tokens "
        "at most"
    )


def test_a_width_that_is_another_is_refused(tmp_path: Path) -> None:
    entry = described(tmp_path, "memoryd: {dimensions: 1536}")
    with pytest.raises(ModelFileError, match=r"memoryd\.dimensions is 1536, but .* have 384"):
        check_against_file(entry, 512, 384, "embedding")


def test_a_reranker_that_is_said_to_embed_is_refused(tmp_path: Path) -> None:
    entry = described(tmp_path)
    with pytest.raises(ModelFileError, match=r"embed\.yaml: embeddings is true, but .* reranker"):
        check_against_file(entry, 512, 384, "reranker")


def test_what_a_users_gallery_file_says_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    text = '[[models]]\nname = "mine"\npath = "x.gguf"\ncontext_tokens = 600\n'
    (tmp_path / "gallery.toml").write_text(text)
    with pytest.raises(ModelFileError, match=r"gallery\.toml: mine: context_tokens is 600"):
        check_against_file(find_entry("mine", tmp_path), 512, 384, "embedding")


def test_what_the_gallery_itself_says_is_not_held_against_a_user(tmp_path: Path) -> None:
    entry = find(tmp_path, "embeddings: true\nparameters: {model: all-MiniLM-L6-v2}")
    check_against_file(entry, 256, 100, "embedding")
    check_against_file(find_entry("all-minilm", tmp_path), 256, 100, "embedding")


def test_a_plain_file_says_nothing_that_could_be_wrong(tmp_path: Path) -> None:
    (tmp_path / "plain.gguf").touch()
    check_against_file(find_entry("plain", tmp_path), 256, 100, "reranker")


FULL_ENTRY = GalleryEntry(
    name="org/my-model:q8",
    description="Is: it? — yes",
    aliases=("mine", "org/other"),
    license="mit",
    kind="reranker",
    architecture="qwen3",
    dimensions=1024,
    trained_dimensions=(1024, 256),
    min_dimensions=32,
    context_tokens=32768,
    trained_tokens=8192,
    pooling="last",
    query_prefix="Instruct: {instruction}\nQuery:",
    document_prefix=" title: {title} | text:  ",
    instruction="yes",
    languages=("en", "no"),
    repository="org/repo",
    revision="1e5",
    gguf="a/b.gguf",
    files=(SourceFile("c.json", 3, "0" * 64), SourceFile("model.safetensors")),
    facts="1:30",
    verified=True,
)


@pytest.mark.parametrize(
    "entry",
    [
        FULL_ENTRY,
        GalleryEntry(name="plain", repository="BAAI/bge-small-en-v1.5"),
        GalleryEntry(
            name="null", path=Path("/blobs/sha256-0123"), instruction="~", facts="\x85 \t"
        ),
        GalleryEntry(name="123", path=Path("/else/x.gguf"), query_prefix="- ", facts="l\n\nm\n"),
    ],
    ids=lambda entry: entry.name,
)
def test_what_an_import_writes_is_read_back_equal(tmp_path: Path, entry: GalleryEntry) -> None:
    path = write_model_file(entry, tmp_path)
    [read] = read_model_files(tmp_path)
    assert read == replace(entry, origin=path)


def test_the_test_of_writing_leaves_no_key_out() -> None:
    unset = {
        field.name
        for field in fields(FULL_ENTRY)
        if getattr(FULL_ENTRY, field.name) == getattr(GalleryEntry(name=""), field.name)
    }
    assert unset == {"package", "path", "origin", "stored_as", "fault"}


def test_an_import_of_a_file_of_the_directory_names_it_as_localai_does(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    path = write_model_file(GalleryEntry(name="m", path=tmp_path / "x.gguf"), tmp_path)
    document = YAML(typ="safe").load(path.read_text())
    assert document["parameters"] == {"model": "x.gguf"}
    assert document["embeddings"] is True
    assert find_entry("m", tmp_path).path == tmp_path / "x.gguf"


def test_an_import_may_be_repeated(tmp_path: Path) -> None:
    write_model_file(FULL_ENTRY, tmp_path)
    path = write_model_file(replace(FULL_ENTRY, license="apache-2.0"), tmp_path)
    assert find_entry("mine", tmp_path).license == "apache-2.0"
    assert [file.name for file in tmp_path.iterdir()] == [path.name] == ["org-my-model-q8.yaml"]


@pytest.mark.parametrize("name", ["M.yaml", "else.yaml"])
def test_an_import_takes_no_name_that_another_file_has(tmp_path: Path, name: str) -> None:
    write(tmp_path, "name: M\nembeddings: true\nparameters: {model: x.gguf}", name)
    with pytest.raises(ModelFileError, match=rf"{name} defines the model 'M': remove it"):
        write_model_file(GalleryEntry(name="m", repository="a/b"), tmp_path)


def test_an_import_overwrites_no_file_of_another_model(tmp_path: Path) -> None:
    write_model_file(GalleryEntry(name="a/b", repository="a/b"), tmp_path)
    with pytest.raises(ModelFileError, match=r"a-b\.yaml defines the model 'a/b'"):
        write_model_file(GalleryEntry(name="a-b", repository="a/b"), tmp_path)


def test_a_directory_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match=r"cannot write .*m\.yaml: "):
        write_model_file(GalleryEntry(name="m", repository="a/b"), tmp_path / "file")
