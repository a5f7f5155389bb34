import re
from pathlib import Path

import pytest

from memoryd.errors import ModelFileError
from memoryd.models.gallery import (
    GalleryEntry,
    canonical,
    gallery_by_name,
    load_gallery,
    read_entry,
    read_gallery,
)

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "models.md"


def gallery_table() -> str:
    """Return the table of docs/models.md."""
    rows = [
        "| Name | Width (trained for) | Context | Pooling | Languages | License |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(_row, load_gallery()),
    ]
    return "\n".join(rows)


def _row(entry: GalleryEntry) -> str:
    width = str(entry.dimensions or "-")
    if entry.min_dimensions:
        width += f" ({entry.min_dimensions} and up)"
    if shorter := entry.trained_dimensions[1:]:
        width += f" ({', '.join(map(str, shorter))})"
    context = f"{entry.context_tokens:,}" if entry.context_tokens else "-"
    languages = ", ".join(entry.languages)
    cells = (f"`{entry.name}`", width, context, entry.pooling, languages, entry.license)
    return f"| {' | '.join(map(str, cells))} |"


def gallery_file(folder: Path, text: str) -> Path:
    path = folder / "gallery.toml"
    path.write_text(text)
    return path


def only_entry(folder: Path, text: str) -> GalleryEntry:
    [entry] = read_gallery(gallery_file(folder, text))
    return entry


def test_the_documentation_has_the_gallery_as_it_is() -> None:
    assert gallery_table() in DOCUMENTATION.read_text()


@pytest.mark.parametrize("entry", load_gallery(), ids=lambda entry: entry.name)
def test_an_entry_says_all_that_its_use_takes(entry: GalleryEntry) -> None:
    assert entry.repository
    assert entry.gguf or entry.files
    assert entry.license
    assert entry.languages
    assert entry.description
    assert entry.pooling
    assert (entry.pooling == "rank") == (entry.kind == "reranker") == (entry.dimensions is None)


@pytest.mark.parametrize("entry", load_gallery(), ids=lambda entry: entry.name)
def test_an_entry_says_where_its_facts_come_from(entry: GalleryEntry) -> None:
    assert entry.facts
    assert entry.verified == (entry.name == "all-minilm")


@pytest.mark.parametrize("entry", load_gallery(), ids=lambda entry: entry.name)
def test_the_widths_of_an_entry_fit_together(entry: GalleryEntry) -> None:
    assert all(width <= (entry.dimensions or 0) for width in entry.trained_dimensions)
    assert (entry.min_dimensions or 0) <= (entry.dimensions or 0)
    assert (entry.trained_tokens or 0) <= (entry.context_tokens or 0)


def test_no_two_models_share_a_name() -> None:
    names = [canonical(name) for entry in load_gallery() for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names)) == len(gallery_by_name())


@pytest.mark.parametrize(
    ("name", "dimensions"),
    [
        ("all-minilm:l12-v2", 384),
        ("qwen3-embedding:0.6b", 1024),
        ("qwen3-embedding", 4096),
        ("nomic-embed-text:v1.5", 768),
        ("mxbai-embed-large:335m", 1024),
        ("bge-large:335m", 1024),
        ("BAAI/bge-small-en-v1.5", 384),
        ("snowflake-arctic-embed:110m", 768),
        ("snowflake-arctic-embed", 1024),
        ("snowflake-arctic-embed2:568m", 1024),
        ("google/embeddinggemma-300m", 768),
        ("intfloat/multilingual-e5-small", 384),
        ("qwen3-embedding-4b", 2560),
        ("bge-m3:567m", 1024),
    ],
)
def test_the_names_of_ollama_localai_and_the_hub_are_known(name: str, dimensions: int) -> None:
    assert gallery_by_name()[canonical(name)].dimensions == dimensions


def test_a_users_entry_has_the_gallerys_format(tmp_path: Path) -> None:
    text = """
    [[models]]
    name = "mine"
    repository = "me/mine"
    gguf = "mine.gguf"
    dimensions = 64
    aliases = ["also-mine"]
    """
    entry = only_entry(tmp_path, text)
    assert (entry.name, entry.dimensions, entry.gguf) == ("mine", 64, "mine.gguf")
    assert entry.origin == tmp_path / "gallery.toml"
    assert not entry.fault


def test_the_gallery_file_of_the_documentation_is_right(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    entries = read_gallery(gallery_file(tmp_path, text))
    assert [(entry.name, entry.fault) for entry in entries] == [
        ("my-model", ""),
        ("my-reranker", ""),
    ]


def test_a_users_entry_may_use_a_file_of_this_machine(tmp_path: Path) -> None:
    entry = only_entry(tmp_path, '[[models]]\nname = "mine"\npath = "folder/mine.gguf"\n')
    assert entry.path == tmp_path / "folder" / "mine.gguf"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('dimensions = "64"', "mine: dimensions: Input should be a valid integer"),
        ("dimensions = 0", "mine: dimensions: Input should be greater than 0"),
        ('poolling = "mean"', "mine: poolling: isn't a key that memoryd knows"),
        ('pooling = "max"', "mine: pooling: Input should be 'none'"),
        ('gguf = "../../etc/passwd"', "mine: gguf: must be a path inside the repository"),
        ('files = [{ path = "/etc/passwd" }]', "mine: files.0.path: must be a path inside"),
        ('files = [{ path = "a", sha256 = "ff" }]', "mine: files.0.sha256: must be 64 hex"),
        ('files = [{ path = "a", size = 1 }]', "mine: files.0.size: isn't a key"),
        ('origin = "x"', "mine: origin: isn't a key that memoryd knows"),
        ("context_tokens = 99999999999999999999", "mine: Integer exceeds 64-bit range"),
        ('aliases = ["a b"]', "mine: aliases.0: must be of letters, digits"),
        ("verified = 1", "mine: verified: Input should be a valid boolean"),
    ],
)
def test_a_wrong_key_of_a_users_entry_is_named(tmp_path: Path, line: str, said: str) -> None:
    text = f'[[models]]\nname = "mine"\nrepository = "me/mine"\n{line}\n'
    assert f"{tmp_path / 'gallery.toml'}: {said}" in only_entry(tmp_path, text).fault


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ('[[models]]\nname = "mine"\n', "mine", "mine: repository: is missing"),
        ('[[models]]\nrepository = "me/mine"\n', "models[1]", "models[1]: name: is missing"),
        ('[[models]]\nname = 7\nrepository = "me/mine"\n', "models[1]", "name: Input should be"),
        ('[[models]]\nname = "a b"\nrepository = "me/mine"\n', "a b", "a b: name: must be of"),
        ('[[models]]\nname = "mine"\nrepository = "mine"\n', "mine", "of the form owner/name"),
        ('[[models]]\nname = "mine"\nrepository =\n', "mine", "isn't TOML: Invalid value (at line"),
        ('[[model]]\nname = "mine"\n', "mine", "model: isn't a key that memoryd knows"),
        ('models = ["mine"]', "gallery.toml", "models: must be tables"),
        ("\x00", "gallery.toml", "isn't TOML"),
        ("x = " + "[" * 100_000, "gallery.toml", "isn't TOML"),
        ("#" * 2_000_000, "gallery.toml", "is longer than the 1,048,576 bytes"),
    ],
)
def test_a_broken_gallery_file_is_reported(tmp_path: Path, text: str, name: str, said: str) -> None:
    entry = only_entry(tmp_path, text)
    assert entry.name == name
    assert str(tmp_path / "gallery.toml") in entry.fault
    assert said in entry.fault


def test_a_gallery_file_that_is_not_text_is_reported(tmp_path: Path) -> None:
    (tmp_path / "gallery.toml").write_bytes(b"\xff\xfe")
    [entry] = read_gallery(tmp_path / "gallery.toml")
    assert "isn't UTF-8 text" in entry.fault


def test_two_entries_of_one_name_are_both_refused(tmp_path: Path) -> None:
    table = '[[models]]\nname = "{}"\nrepository = "me/mine"\n'
    entries = read_gallery(gallery_file(tmp_path, table.format("mine") + table.format("Mine")))
    assert all("name: the file has it twice" in entry.fault for entry in entries)


def test_one_wrong_entry_leaves_the_others_alone(tmp_path: Path) -> None:
    text = '[[models]]\nname = "bad"\n[[models]]\nname = "good"\nrepository = "me/good"\n'
    entries = read_gallery(gallery_file(tmp_path, text))
    assert [bool(entry.fault) for entry in entries] == [True, False]


def test_a_users_model_never_uses_the_files_of_the_gallerys_model_of_that_name(
    tmp_path: Path,
) -> None:
    text = '[[models]]\nname = "all-minilm"\nrepository = "{}/other"\n'
    mine = only_entry(tmp_path, text.format("me"))
    theirs = only_entry(tmp_path, text.format("them"))
    assert len({mine.stem, theirs.stem, gallery_by_name()["all-minilm"].stem}) == 3


def test_an_entry_that_cannot_be_described_is_refused() -> None:
    endless: dict[str, object] = {"name": "m"}
    endless["files"] = [endless]
    with pytest.raises(ModelFileError, match=r"^here: "):
        read_entry(endless, "here")
