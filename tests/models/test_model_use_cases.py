"""What commands and routes do with models, on tiny models that are really run."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from local_hub import LocalHub
from safetensors.numpy import load_file, save_file
from tiny_models import POSITIONS, WIDTH, make_tiny

from memoryd.embeddings.measurements import file_digest
from memoryd.embeddings.trial import ModelFacts, Trial
from memoryd.embeddings.tuning import Measured
from memoryd.embeddings.types import Tuning
from memoryd.errors import (
    ConflictError,
    InvalidInputError,
    ModelFileError,
    ModelNotFoundError,
)
from memoryd.memory.model_changes import (
    Described,
    as_pooling,
    as_weight_type,
    import_model,
    pull_model,
)
from memoryd.memory.model_listing import (
    ModelSummary,
    describe_model,
    list_models,
    suggest_names,
)
from memoryd.memory.model_removal import remove_model
from memoryd.memory.model_tuning import faster_weight_type, speeds_of, tune_model
from memoryd.memory.models import ModelLoader
from memoryd.models.catalog import find_entry
from memoryd.models.conversion import convert, describe_folder
from memoryd.models.weights import WeightType

GALLERY = """
[[models]]
name = "tiny"
aliases = ["tiny:v1", "bge-m3"]
repository = "some/tiny"
gguf = "tiny.gguf"
license = "mit"
facts = "a test"
query_prefix = "q: "
trained_dimensions = [64, 32]
"""


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of GGUFs, each called by the kind of tiny model that it is."""
    folder = tmp_path_factory.mktemp("tiny")
    for kind in ("bert", "qwen3", "bert-rank"):
        source = make_tiny(kind, folder / kind)
        convert(describe_folder(source, kind), source, folder / f"{kind}.gguf", "f32")
    return folder


@pytest.fixture
def loader(tmp_path: Path) -> ModelLoader:
    (tmp_path / "models").mkdir()
    return ModelLoader(tmp_path / "models", is_measuring=False)


@pytest.fixture
def steps() -> list[str]:
    return []


async def listed(loader: ModelLoader) -> dict[str, ModelSummary]:
    return {model.name: model for model in await list_models(loader)}


def offer_tiny(hub: LocalHub, loader: ModelLoader, tiny_files: Path) -> None:
    """Let the user's gallery have a model that the hub has."""
    shutil.copy(tiny_files / "bert.gguf", hub.folder / "tiny.gguf")
    (loader.models_dir / "gallery.toml").write_text(GALLERY)


def visible_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


async def test_of_a_file_that_was_dropped_is_told_what_it_says_itself(
    loader: ModelLoader, tiny_files: Path
) -> None:
    path = loader.models_dir / "mine.gguf"
    shutil.copy(tiny_files / "qwen3.gguf", path)
    untried = (await listed(loader))["mine"]
    assert (untried.is_here, untried.path, untried.dimensions) == (True, path, WIDTH)
    assert (untried.kind, untried.weight_type) == ("embedding", "f32")
    model = await describe_model(loader, loader.resolve("MINE.gguf"))
    assert (model.architecture, model.pooling, model.weight_type) == ("qwen3", "last", "f32")
    assert (model.dimensions, model.kind, model.speeds) == (WIDTH, "embedding", ())
    assert model.size_bytes == path.stat().st_size
    assert model.memory_bytes
    tried = (await listed(loader))["mine"]
    assert (tried.dimensions, tried.weight_type) == (WIDTH, "f32")
    assert tried.context_tokens == model.context_tokens


async def test_a_file_shows_that_a_model_is_a_reranker(
    loader: ModelLoader, tiny_files: Path
) -> None:
    shutil.copy(tiny_files / "bert-rank.gguf", loader.models_dir / "mine.gguf")
    assert (await listed(loader))["mine"].kind == "reranker"
    model = await describe_model(loader, "mine")
    assert (model.kind, model.pooling) == ("reranker", "rank")


async def test_a_model_that_is_described_wrongly_is_listed_with_its_fault(
    loader: ModelLoader,
) -> None:
    (loader.models_dir / "wrong.yaml").write_text("name: wrong\nparameters: {model: x.gguf}\n")
    model = (await listed(loader))["wrong"]
    assert "wrong.yaml: embeddings: is missing" in model.fault
    assert (model.is_here, model.kind) == (False, None)
    with pytest.raises(ModelFileError, match="embeddings"):
        await describe_model(loader, "wrong")
    with pytest.raises(ModelFileError, match="remove yourself"):
        remove_model(loader, "wrong")


async def test_a_file_that_is_no_gguf_is_listed_with_its_fault(loader: ModelLoader) -> None:
    (loader.models_dir / "wreck.gguf").write_bytes(b"GGUF" + 100 * b"\xff")
    model = (await listed(loader))["wreck"]
    assert "wreck.gguf is no GGUF" in model.fault
    assert (model.is_here, model.kind) == (False, None)


async def test_a_model_whose_name_another_has_taken_is_not_listed(
    loader: ModelLoader, gguf_hub: LocalHub, tiny_files: Path
) -> None:
    assert "bge-m3" in await listed(loader)
    offer_tiny(gguf_hub, loader, tiny_files)
    assert "bge-m3" not in await listed(loader)
    assert loader.resolve("bge-m3") == "tiny"


async def test_of_a_model_that_is_not_here_the_gallery_is_told(loader: ModelLoader) -> None:
    model = await describe_model(loader, "qwen3-embedding-0.6b")
    entry = find_entry("qwen3-embedding-0.6b", loader.models_dir)
    assert (model.is_here, model.path, model.size_bytes) == (False, None, None)
    assert model.name == entry.name
    assert model.repository == entry.repository
    assert (model.license, model.instruction) == (entry.license, entry.instruction)
    assert (model.query_prefix, model.min_dimensions) == (entry.query_prefix, 32)
    assert (model.pooling, model.is_verified) == ("last", False)
    assert model.facts == " ".join(entry.facts.split())


async def test_a_pulled_model_is_tried_and_the_second_time_here(
    loader: ModelLoader, gguf_hub: LocalHub, tiny_files: Path, steps: list[str]
) -> None:
    offer_tiny(gguf_hub, loader, tiny_files)
    pulled = await pull_model(
        loader, "tiny:v1", progress=lambda step, _done, _total: steps.append(step)
    )
    assert (pulled.name, pulled.was_here, pulled.is_here) == ("tiny", False, True)
    assert (pulled.dimensions, pulled.context_tokens) == (WIDTH, POSITIONS)
    assert pulled.source == "hf:some/tiny"
    assert list(dict.fromkeys(steps)) == ["fetching tiny.gguf", "trying tiny on this machine"]
    asked = len(gguf_hub.requested)
    steps.clear()
    again = await pull_model(loader, "tiny", progress=lambda step, *_: steps.append(step))
    assert again == replace(pulled, was_here=True)
    assert len(gguf_hub.requested) == asked
    assert steps == []


async def test_what_was_fetched_is_told_with_its_hash(
    loader: ModelLoader, gguf_hub: LocalHub, tiny_files: Path
) -> None:
    offer_tiny(gguf_hub, loader, tiny_files)
    await pull_model(loader, "tiny")
    [file] = (await describe_model(loader, "tiny")).files
    content = (tiny_files / "bert.gguf").read_bytes()
    assert (file.path, file.size_bytes) == ("tiny.gguf", len(content))
    assert file.sha256 == sha256(content).hexdigest()


async def test_a_model_of_the_hub_is_pulled_once(
    loader: ModelLoader, gguf_hub: LocalHub, tiny_files: Path
) -> None:
    shutil.copy(tiny_files / "bert.gguf", gguf_hub.folder / "tiny-q8_0.gguf")
    pulled = await pull_model(loader, "hf:some/tiny:Q8_0")
    assert (pulled.name, pulled.was_here) == ("some/tiny:Q8_0", False)
    asked = len(gguf_hub.requested)
    assert (await pull_model(loader, "hf:some/tiny:Q8_0")).was_here
    assert len(gguf_hub.requested) == asked


@pytest.mark.parametrize("source", ["https://host/x.gguf", "/etc/x.gguf", "ollama:x", "./folder"])
async def test_what_is_no_name_is_not_pulled(loader: ModelLoader, source: str) -> None:
    with pytest.raises(InvalidInputError, match="memoryd models import"):
        await pull_model(loader, source)


async def test_a_broken_model_of_the_hub_is_not_here_after_its_trial(
    loader: ModelLoader, gguf_hub: LocalHub, tiny_files: Path
) -> None:
    offer_tiny(gguf_hub, loader, tiny_files)
    content = (tiny_files / "bert.gguf").read_bytes()
    (gguf_hub.folder / "tiny.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFileError):
        await pull_model(loader, "tiny")
    assert not (await listed(loader))["tiny"].is_here


async def test_a_converted_model_gets_the_weights_that_are_asked_for(
    loader: ModelLoader, gguf_hub: LocalHub
) -> None:
    make_tiny("bert", gguf_hub.folder)
    (loader.models_dir / "gallery.toml").write_text(GALLERY.replace('gguf = "tiny.gguf"', ""))
    assert (await pull_model(loader, "tiny", weight_type="f32")).weight_type == "f32"
    with pytest.raises(ConflictError, match="memoryd models remove tiny"):
        await pull_model(loader, "tiny", weight_type="bf16")
    remove_model(loader, "tiny")
    assert (await pull_model(loader, "tiny", weight_type="bf16")).weight_type == "bf16"
    assert (await pull_model(loader, "tiny")).weight_type == "bf16"


@pytest.mark.parametrize("weight_type", ["bf16", "f32"])
async def test_repositories_are_converted_to_the_weights_that_are_asked_for(
    loader: ModelLoader, gguf_hub: LocalHub, weight_type: WeightType
) -> None:
    make_tiny("bert", gguf_hub.folder)
    (loader.models_dir / "gallery.toml").write_text(GALLERY.replace('gguf = "tiny.gguf"', ""))
    pulled = await pull_model(loader, "hf:some/other", weight_type=weight_type)
    imported = await import_model(loader, "tiny", weight_type=weight_type)
    assert (pulled.name, pulled.weight_type) == ("some/other", weight_type)
    assert (imported.name, imported.weight_type) == ("tiny", weight_type)


async def test_the_weights_of_a_gguf_cannot_be_chosen(
    loader: ModelLoader, gguf_hub: LocalHub, tiny_files: Path
) -> None:
    offer_tiny(gguf_hub, loader, tiny_files)
    with pytest.raises(InvalidInputError, match="used as it is"):
        await pull_model(loader, "tiny", weight_type="f32")
    with pytest.raises(InvalidInputError, match="as they are"):
        await import_model(loader, str(tiny_files / "bert.gguf"), weight_type="f32")


async def test_what_is_said_of_a_model_is_in_its_file_and_what_it_shows_is_too(
    loader: ModelLoader, tiny_files: Path
) -> None:
    described = Described(
        query_prefix="Instruct: {instruction}\nQuery:",
        document_prefix="title: {title} | ",
        instruction="Find it",
        pooling="cls",
    )
    source = tiny_files / "bert.gguf"
    model = await import_model(loader, str(source), name="my/Own:1", described=described)
    assert (model.name, model.path, model.was_here) == ("my/Own:1", source, False)
    fresh = ModelLoader(loader.models_dir, is_measuring=False)
    entry = find_entry("my/own:1", fresh.models_dir)
    assert (entry.query_prefix, entry.instruction) == ("Instruct: {instruction}\nQuery:", "Find it")
    assert entry.document_prefix == "title: {title} | "
    assert (entry.pooling, entry.kind) == ("cls", "embedding")
    shown = await describe_model(fresh, "my/own:1")
    assert (shown.pooling, shown.dimensions) == ("cls", WIDTH)
    assert shown.source == str(source)
    assert shown.origin == entry.origin == loader.models_dir / "my-Own-1.yaml"
    assert (await fresh.prepare("my/own:1")).spec.pooling == "cls"


async def test_a_reranker_is_imported_as_one(loader: ModelLoader, tiny_files: Path) -> None:
    model = await import_model(loader, str(tiny_files / "bert-rank.gguf"), name="ranks")
    assert model.kind == "reranker"
    assert find_entry("ranks", loader.models_dir).kind == "reranker"
    await loader.prepare("ranks")


async def test_a_folder_is_imported_as_the_weights_that_are_asked_for(
    loader: ModelLoader, tiny_files: Path
) -> None:
    folder = str(tiny_files / "qwen3")
    model = await import_model(loader, folder, name="own", weight_type="bf16")
    assert (model.weight_type, model.dimensions) == ("bf16", WIDTH)
    assert visible_in(loader.models_dir) == {"own.yaml", Path(str(model.path)).name}
    with pytest.raises(ConflictError, match="taken"):
        await import_model(loader, folder, name="own")


async def test_a_file_that_says_no_pooling_is_imported_with_the_one_that_is_said(
    loader: ModelLoader, tiny_files: Path, tmp_path: Path
) -> None:
    file = without_pooling(tiny_files / "qwen3.gguf", tmp_path / "plain.gguf")
    with pytest.raises(ModelFileError, match="how its vectors are pooled"):
        await import_model(loader, str(file), name="own")
    assert visible_in(loader.models_dir) == set()
    assert file.is_file()
    model = await import_model(loader, str(file), name="own", described=Described(pooling="last"))
    assert model.dimensions == WIDTH
    assert (await describe_model(loader, "own")).pooling == "last"


def without_pooling(source: Path, target: Path) -> Path:
    """Copy a GGUF, but for what says how vectors are pooled."""
    content = source.read_bytes()
    assert content.count(b".pooling_type") == 1
    target.write_bytes(content.replace(b".pooling_type", b".pooling_what"))
    return target


async def test_a_model_of_ollama_is_pooled_as_the_gallery_says_where_its_file_does_not(
    loader: ModelLoader, tiny_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = without_pooling(tiny_files / "qwen3.gguf", tmp_path / "plain.gguf")
    add_to_ollama(tmp_path / "ollama", "qwen3-embedding", file)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    model = await import_model(loader, "ollama:qwen3-embedding", name="mine")
    assert (await describe_model(loader, model.name)).pooling == "last"


async def test_a_model_of_ollama_is_used_in_place_with_what_the_gallery_knows(
    loader: ModelLoader, tiny_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = add_to_ollama(tmp_path / "ollama", "nomic-embed-text", tiny_files / "bert.gguf")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    model = await import_model(loader, "ollama:nomic-embed-text")
    assert (model.name, model.path) == ("ollama/nomic-embed-text", blob)
    known = find_entry("nomic-embed-text", loader.models_dir)
    shown = await describe_model(loader, model.name)
    assert known.query_prefix
    assert (shown.query_prefix, shown.dimensions) == (known.query_prefix, WIDTH)
    removed = remove_model(loader, model.name)
    assert blob not in removed.files
    assert blob.is_file()
    with pytest.raises(ModelNotFoundError):
        await describe_model(loader, model.name)


def add_to_ollama(store: Path, name: str, file: Path) -> Path:
    """Make what Ollama's store has of a model, and return the blob."""
    digest = sha256(file.read_bytes()).hexdigest()
    blob = store / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True)
    shutil.copy(file, blob)
    media_type = "application/vnd.ollama.image.model"
    layer = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": blob.stat().st_size}
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / name / "latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": [layer]}))
    return blob


async def test_a_folder_that_gives_no_finite_vectors_leaves_nothing(
    loader: ModelLoader, tmp_path: Path
) -> None:
    folder = make_tiny("bert", tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    broken = {name: np.full_like(array, np.nan) for name, array in weights.items()}
    save_file(broken, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match="finite"):
        await import_model(loader, str(folder), name="broken")
    assert visible_in(loader.models_dir) == set()
    assert "broken" not in await listed(loader)


@pytest.mark.parametrize(
    ("source", "name", "described", "said"),
    [
        ("./x.gguf", "x", Described(instruction="Find it"), "needs a query prefix"),
        ("./x.gguf", "x", Described(instruction="x", query_prefix="q: "), "needs a query prefix"),
        ("bge-m3", None, Described(query_prefix="q: "), "a name of its own"),
    ],
)
async def test_a_description_that_would_do_nothing_is_refused(
    loader: ModelLoader, source: str, name: str | None, described: Described, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        await import_model(loader, source, name=name, described=described)


async def test_a_model_that_a_collection_works_with_stays(
    loader: ModelLoader, tiny_files: Path
) -> None:
    model = await import_model(loader, str(tiny_files / "bert"), name="Own")
    with pytest.raises(ConflictError, match="a collection works with Own"):
        remove_model(loader, "own", in_use={"Own", "other"})
    assert model.path
    assert model.path.is_file()
    removed = remove_model(loader, "OWN", in_use={"other"})
    assert removed.name == "Own"
    assert {model.path, model.origin} <= set(removed.files)
    assert visible_in(loader.models_dir) == set()


async def test_a_model_is_measured_anew_each_time(loader: ModelLoader, tiny_files: Path) -> None:
    shutil.copy(tiny_files / "bert.gguf", loader.models_dir / "mine.gguf")
    first = await tune_model(loader, "mine")
    assert (first.name, first.weight_type) == ("mine", "f32")
    assert not first.is_converted
    assert first.kept_in == loader.models_dir
    assert [speed.is_used for speed in first.speeds].count(True) == 1
    assert {speed.weight_type for speed in first.speeds} == {"f32", "bf16"}
    assert all(speed.tokens_per_s > 0 for speed in first.speeds)
    assert (await describe_model(loader, "mine")).speeds == first.speeds
    second = await tune_model(loader, "mine")
    assert second.speeds != first.speeds
    assert (await describe_model(loader, "mine")).speeds == second.speeds


def trial_of(rows: Sequence[tuple[str, int, float]]) -> Trial:
    facts = ModelFacts("bert", "mean", 64, 128, 1000, "bf16", 1)
    table = [Measured(kind, Tuning(lanes), 100.0, gain) for kind, lanes, gain in rows]
    return Trial(facts, table)


@pytest.mark.parametrize(
    ("rows", "used", "faster"),
    [
        ([("", 1, 1), ("", 2, 1.04)], 0, None),
        ([("", 1, 1), ("", 2, 1.06)], 1, None),
        ([("", 1, 1), ("f32", 1, 1.04)], 0, None),
        ([("", 1, 1), ("", 2, 1.1), ("f32", 2, 1.04)], 1, None),
        ([("", 1, 1), ("", 2, 1.1), ("f32", 2, 1.06)], 1, "f32"),
    ],
)
def test_what_is_clearly_faster_is_used_and_other_weights_are_told(
    rows: list[tuple[str, int, float]], used: int, faster: str | None
) -> None:
    trial = trial_of(rows)
    speeds = speeds_of(trial)
    assert [speed.is_used for speed in speeds].index(True) == used
    assert [speed.weight_type for speed in speeds] == [kind or "bf16" for kind, *_ in rows]
    assert [speed.gain for speed in speeds] == [gain for *_, gain in rows]
    assert faster_weight_type(trial) == faster


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("all-minilmm", "all-minilm"),
        ("Qwen3", "qwen3-embedding-8b"),
        ("bge_m3", "bge-m3"),
        ("mxbai", "mxbai-embed-large"),
    ],
)
def test_names_that_are_near_are_suggested(loader: ModelLoader, name: str, suggested: str) -> None:
    assert suggested in suggest_names(loader, name)
    assert suggest_names(loader, "Ω∂ß") == []


@pytest.mark.parametrize(("read", "text"), [(as_pooling, "average"), (as_weight_type, "q4_0")])
def test_words_that_are_none_of_the_choices_are_refused(
    read: Callable[[str], str], text: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"'{text}' must be one of"):
        read(text)


def test_a_file_is_hashed_once_for_each_version_of_it(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.gguf", tmp_path / "b.gguf"
    path.write_bytes(b"one")
    first, changed_ns = file_digest(path), path.stat().st_mtime_ns
    shutil.copy(path, copy)
    assert file_digest(copy) == first
    path.write_bytes(b"two")
    os.utime(path, ns=(changed_ns, changed_ns))
    assert file_digest(path) == first  # as far as can be seen, it is the same
    os.utime(path, ns=(changed_ns, changed_ns + 1))
    assert file_digest(path) != first
