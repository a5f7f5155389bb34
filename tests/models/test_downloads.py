import asyncio
import os
import shutil
import ssl
import subprocess
import sys
import time
from asyncio.subprocess import PIPE
from collections import namedtuple
from collections.abc import Callable, Iterator
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from local_hub import FileServer

from memoryd.errors import ModelFileError
from memoryd.models.downloads import Download, Downloaded, download, tell_nobody
from memoryd.models.transport import Patience, open_session

QUICK = Patience(answer_s=2.0, stall_s=0.3, retry_delays_s=(0.01, 0.02))
DiskUsage = namedtuple("DiskUsage", ["total", "used", "free"])  # as shutil's own
Steps = list[tuple[str, int, int | None]]

DOWNLOADING = """
import asyncio, pathlib, sys
from memoryd.models.downloads import Download, download, tell_nobody
from memoryd.models.transport import Patience, open_session

async def main(url, folder):
    wanted, target = Download(url, "x.gguf"), pathlib.Path(folder) / "x.gguf"
    async with open_session(Patience()) as session:
        await download(session, wanted, target, tell_nobody, Patience())

asyncio.run(main(*sys.argv[1:]))
"""


def hash_of(content: bytes) -> str:
    return sha256(content).hexdigest()


async def fetch(
    server: FileServer,
    folder: Path,
    *,
    size_bytes: int | None = None,
    sha256: str | None = None,
    patience: Patience = QUICK,
    steps: Steps | None = None,
) -> Downloaded:
    wanted = Download(f"{server.url}/x.gguf", "x.gguf", size_bytes, sha256)
    told = tell_nobody if steps is None else lambda *step: steps.append(step)
    async with open_session(patience) as session:
        return await download(session, wanted, folder / "x.gguf", told, patience)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_file_comes_whole_and_alone(file_server: FileServer, tmp_path: Path) -> None:
    steps: Steps = []
    file_server.headers["X-Repo-Commit"] = "abc"
    downloaded = await fetch(file_server, tmp_path, steps=steps)
    size_bytes = len(file_server.content)
    assert downloaded == Downloaded(size_bytes, hash_of(file_server.content), "abc")
    assert (tmp_path / "x.gguf").read_bytes() == file_server.content
    assert names_in(tmp_path) == {"x.gguf"}
    assert steps[-1] == ("fetching x.gguf", size_bytes, size_bytes)


async def test_a_download_that_breaks_off_is_continued_there(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.cuts = [300_000, 200_000]
    downloaded = await fetch(file_server, tmp_path, sha256=hash_of(file_server.content))
    assert downloaded.sha256 == hash_of(file_server.content)
    assert file_server.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert file_server.sent_bytes == len(file_server.content)


async def test_progress_counts_more_than_the_number_of_failures(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.cuts = [100_000] * 8
    await fetch(file_server, tmp_path)
    assert file_server.sent_bytes == len(file_server.content)
    assert len(file_server.requests) == 9


async def test_what_has_come_is_continued_by_another_process(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.cuts = [400_000, 0, 0]
    with pytest.raises(ModelFileError, match=r"failed: "):
        await fetch(file_server, tmp_path)
    assert names_in(tmp_path) == {"x.gguf.part", "x.gguf.part.json"}
    command = [sys.executable, "-c", DOWNLOADING, f"{file_server.url}/x.gguf", str(tmp_path)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    assert file_server.ranges[-1] == "bytes=400000-"
    assert file_server.sent_bytes == len(file_server.content)
    assert (tmp_path / "x.gguf").read_bytes() == file_server.content


async def test_a_part_that_only_lacked_its_name_is_not_fetched_again(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.cuts = [400_000, 0, 0]
    with pytest.raises(ModelFileError):
        await fetch(file_server, tmp_path)
    (tmp_path / "x.gguf.part").write_bytes(file_server.content)
    await fetch(file_server, tmp_path)
    assert file_server.sent_bytes == 400_000
    assert names_in(tmp_path) == {"x.gguf"}


async def test_a_part_of_another_version_is_thrown_away(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.cuts = [400_000, 0, 0]
    with pytest.raises(ModelFileError):
        await fetch(file_server, tmp_path)
    file_server.content, file_server.etag = b"GGUF" + os.urandom(500_000), '"v2"'
    downloaded = await fetch(file_server, tmp_path)
    assert downloaded.sha256 == hash_of(file_server.content)
    assert file_server.requests[-1].headers["If-Range"] == '"v1"'


async def test_a_server_that_continues_another_version_is_not_believed(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.cuts = [400_000, 0, 0]
    with pytest.raises(ModelFileError):
        await fetch(file_server, tmp_path)
    # It takes the old validator for its own, and sends the rest of something else.
    file_server.content = b"GGUF" + os.urandom(len(file_server.content) - 4)
    file_server.headers["ETag"] = '"v2"'
    downloaded = await fetch(file_server, tmp_path)
    assert downloaded.sha256 == hash_of(file_server.content)
    assert file_server.ranges[-2:] == ["bytes=400000-", None]


async def test_a_server_without_ranges_is_asked_for_all_again(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.takes_ranges = False
    file_server.cuts = [400_000]
    downloaded = await fetch(file_server, tmp_path)
    assert downloaded.sha256 == hash_of(file_server.content)
    assert file_server.sent_bytes == 400_000 + len(file_server.content)


@pytest.mark.parametrize("etag", [None, 'W/"v1"', "v1"])
async def test_without_a_strong_validator_nothing_is_continued(
    file_server: FileServer, tmp_path: Path, etag: str | None
) -> None:
    file_server.etag = etag
    file_server.cuts = [400_000]
    downloaded = await fetch(file_server, tmp_path)
    assert downloaded.sha256 == hash_of(file_server.content)
    assert file_server.ranges == [None, None]


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"etag": 7}', b"[" * 4000, b'{"x": 1}'])
async def test_a_part_whose_note_is_broken_is_thrown_away(
    file_server: FileServer, tmp_path: Path, note: bytes
) -> None:
    (tmp_path / "x.gguf.part").write_bytes(b"other bytes")
    (tmp_path / "x.gguf.part.json").write_bytes(note)
    downloaded = await fetch(file_server, tmp_path)
    assert downloaded.sha256 == hash_of(file_server.content)


async def test_a_server_that_breaks_off_without_progress_is_left(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.cuts = [1000, 0, 0, 0]
    with pytest.raises(ModelFileError, match=r"127.0.0.1:\d+ failed: "):
        await fetch(file_server, tmp_path)
    assert len(file_server.requests) == 3  # the first and two retries


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_server_that_is_busy_is_asked_again(
    file_server: FileServer, tmp_path: Path, status: int
) -> None:
    file_server.first_statuses = [status]
    await fetch(file_server, tmp_path)
    assert len(file_server.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_server_that_refuses_is_not_asked_again(
    file_server: FileServer, tmp_path: Path, status: int
) -> None:
    file_server.first_statuses = [status]
    with pytest.raises(ModelFileError, match=rf"failed: {status} .* for x.gguf"):
        await fetch(file_server, tmp_path)
    assert len(file_server.requests) == 1


@pytest.mark.parametrize("in_s", [lambda: "1", lambda: formatdate(time.time() + 2, usegmt=True)])
async def test_retry_after_is_waited_for(
    file_server: FileServer, tmp_path: Path, in_s: Callable[[], str]
) -> None:
    file_server.first_statuses = [503]
    file_server.headers["Retry-After"] = in_s()
    started = time.monotonic()
    await fetch(file_server, tmp_path)
    assert time.monotonic() - started >= 0.9


async def test_a_retry_after_of_hours_is_told_instead_of_waited_for(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.first_statuses = [429]
    file_server.headers["Retry-After"] = "7200"
    with pytest.raises(ModelFileError, match="asks to come back in 7200 s"):
        await fetch(file_server, tmp_path)


async def test_a_server_that_stalls_is_asked_for_the_rest(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.stall_after = 300_000
    await fetch(file_server, tmp_path)
    assert file_server.ranges[:2] == [None, "bytes=300000-"]
    assert (tmp_path / "x.gguf").read_bytes() == file_server.content


async def test_more_bytes_than_are_known_are_refused_before_they_come(
    file_server: FileServer, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match="instead of 1,000"):
        await fetch(file_server, tmp_path, size_bytes=1000)
    assert names_in(tmp_path) == set()


async def test_a_length_that_contradicts_the_hubs_own_is_refused(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.headers["X-Linked-Size"] = "999"
    with pytest.raises(ModelFileError, match="not the file that the hub announces"):
        await fetch(file_server, tmp_path)
    assert names_in(tmp_path) == set()


async def test_a_length_that_is_announced_too_short_is_noticed_by_the_hash(
    file_server: FileServer, tmp_path: Path
) -> None:
    whole = hash_of(file_server.content)
    file_server.announced_bytes = 500_000
    file_server.content = file_server.content[:500_000]
    with pytest.raises(ModelFileError, match="its sha256 is"):
        await fetch(file_server, tmp_path, sha256=whole)
    assert names_in(tmp_path) == set()


async def test_a_length_that_is_announced_too_long_is_noticed_when_all_has_come(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.announced_bytes = 2 << 20
    with pytest.raises(ModelFileError, match="sends 1,048,576 bytes instead of 2,097,152"):
        await fetch(file_server, tmp_path)
    assert names_in(tmp_path) == set()


async def test_a_body_without_length_ends_where_it_is_longer_than_known(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.headers["Transfer-Encoding"] = "chunked"
    with pytest.raises(ModelFileError, match="longer than 500,000 bytes"):
        await fetch(file_server, tmp_path, size_bytes=500_000)
    assert names_in(tmp_path) == set()


async def test_a_body_without_length_that_ends_early_is_not_taken_for_the_whole(
    file_server: FileServer, tmp_path: Path
) -> None:
    size_bytes = len(file_server.content)
    file_server.headers["Transfer-Encoding"] = "chunked"
    file_server.content, rest = file_server.content[:600_000], file_server.content[600_000:]
    with pytest.raises(ModelFileError, match="sends 600,000 bytes instead of 1,048,576"):
        await fetch(file_server, tmp_path, size_bytes=size_bytes)
    file_server.content += rest
    await fetch(file_server, tmp_path, size_bytes=size_bytes)
    assert (tmp_path / "x.gguf").read_bytes() == file_server.content


async def test_wrong_bytes_get_no_name_and_are_not_kept(
    file_server: FileServer, tmp_path: Path
) -> None:
    wrong = hash_of(file_server.content)
    with pytest.raises(ModelFileError, match=f"x.gguf is not the file .* sha256 is {wrong}"):
        await fetch(file_server, tmp_path, sha256="0" * 64)
    assert names_in(tmp_path) == set()


async def test_the_hubs_own_hash_is_checked(file_server: FileServer, tmp_path: Path) -> None:
    file_server.headers["X-Linked-Etag"] = f'"{"0" * 64}"'
    with pytest.raises(ModelFileError, match="not the file that memoryd knows"):
        await fetch(file_server, tmp_path)
    assert names_in(tmp_path) == set()


async def test_a_hash_of_git_is_not_taken_for_one_of_the_file(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.headers["X-Linked-Etag"] = f'"{"0" * 40}"'
    assert (await fetch(file_server, tmp_path)).sha256 == hash_of(file_server.content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!doctype html><p>Please sign in", "a web page"),
        (b"  <html>" + bytes(100_000), "a web page"),
        (b"lmgg" + bytes(100), "bert.cpp"),
        (b"version https://git-lfs.github.com/spec/v1", "not a GGUF"),
        (b"GG", "not a GGUF"),
        (b"", "not a GGUF"),
    ],
)
async def test_what_is_no_gguf_gets_no_name(
    file_server: FileServer, tmp_path: Path, content: bytes, said: str
) -> None:
    file_server.content = content
    with pytest.raises(ModelFileError, match=said):
        await fetch(file_server, tmp_path)
    assert names_in(tmp_path) == set()


async def test_compressed_bytes_are_refused(file_server: FileServer, tmp_path: Path) -> None:
    file_server.headers["Content-Encoding"] = "gzip"
    with pytest.raises(ModelFileError, match=r"sends x.gguf compressed"):
        await fetch(file_server, tmp_path)
    assert file_server.requests[0].headers["Accept-Encoding"] == "identity"


async def test_a_full_disk_is_noticed_before_the_bytes_come(
    file_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(10_000, 9_000, 1_000))
    with pytest.raises(ModelFileError, match=r"needs 1,048,576 more bytes, .* has 1,000 bytes"):
        await fetch(file_server, tmp_path)
    assert not (tmp_path / "x.gguf").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode != 0:
        pytest.skip("only root mounts disks")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_disk_that_is_too_small_is_named_with_both_numbers(
    file_server: FileServer, small_disk: Path
) -> None:
    with pytest.raises(ModelFileError, match=rf"1,048,576 more bytes, and {small_disk} has 5"):
        await fetch(file_server, small_disk)


async def test_a_redirect_is_followed_without_the_token(
    file_server: FileServer,
    other_server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", file_server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    other_server.content = b"GGUF" + os.urandom(1000)
    file_server.location = other_server.url.replace("127.0.0.1", "localhost") + "/cdn"
    file_server.headers["X-Linked-Etag"] = f'"{hash_of(other_server.content)}"'
    file_server.headers["X-Linked-Size"] = "1004"
    await fetch(file_server, tmp_path)
    assert file_server.tokens == ["Bearer hf_secret"]
    assert other_server.tokens == [None]
    assert (tmp_path / "x.gguf").read_bytes() == other_server.content


async def test_a_redirect_on_the_hub_itself_keeps_the_token(
    file_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", file_server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    file_server.location = "/elsewhere"
    with pytest.raises(ModelFileError, match="redirects more than 10 times"):
        await fetch(file_server, tmp_path)
    assert set(file_server.tokens) == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://localhost/x", "", "//", "data:,x"]
)
async def test_a_redirect_to_no_web_address_is_refused(
    file_server: FileServer, tmp_path: Path, location: str
) -> None:
    file_server.location = location or " "
    with pytest.raises(ModelFileError, match="redirects"):
        await fetch(file_server, tmp_path)
    assert names_in(tmp_path) == set()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_a_redirect_that_gives_encryption_up_is_refused(
    other_server: FileServer, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    made = [*making, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [*made, "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    encrypted = FileServer(b"", location=f"{other_server.url}/x.gguf")
    app = web.Application()
    app.router.add_get("/{path:.*}", encrypted.handle)
    server = TestServer(app, scheme="https", host="localhost")
    await server.start_server(ssl=context, shutdown_timeout=0.1)
    url = str(server.make_url("/x.gguf"))
    # aiohttp reads the trusted certificates when it is imported: so by another process.
    environment = {**os.environ, "SSL_CERT_FILE": str(certificate)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DOWNLOADING, url, str(tmp_path), env=environment, stderr=PIPE
    )
    _, said = await child.communicate()
    await server.close()
    assert "which isn't encrypted" in said.decode()
    assert len(encrypted.requests) == 1
    assert not other_server.requests


async def test_another_host_than_the_hub_gets_no_token(
    file_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    await fetch(file_server, tmp_path)
    assert file_server.tokens == [None]


async def test_the_token_stands_over_what_netrc_has_for_the_hub(
    file_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HF_ENDPOINT", file_server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    await fetch(file_server, tmp_path / "models")
    assert file_server.tokens == ["Bearer hf_secret"]


async def test_a_signed_address_that_has_expired_is_asked_for_again(
    file_server: FileServer, other_server: FileServer, tmp_path: Path
) -> None:
    other_server.content = b"GGUF" + os.urandom(1000)
    other_server.first_statuses = [403]
    file_server.location = other_server.url.replace("127.0.0.1", "localhost")
    await fetch(file_server, tmp_path)
    assert len(file_server.requests) == len(other_server.requests) == 2


async def test_the_users_word_to_stay_offline_is_kept(
    file_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE is set"):
        await fetch(file_server, tmp_path)
    assert not file_server.requests
