"""`memoryd keys …` as a shell runs it."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from servers import Running
from shell import Said, run

from memoryd.cli.keys import read_end
from memoryd.errors import InvalidInputError

KEY = re.compile(r"mk_k[0-9]+_[0-9a-f]{48}\n")


class Shell:
    """Run `memoryd keys` against one server, with one key."""

    def __init__(self, url: str, key: str = "") -> None:
        self._options = ("--url", url, *(("--api-key", key) if key else ()))

    async def keys(self, command: str, *arguments: str) -> Said:
        """Return what `memoryd keys <command>` says."""
        return await run("keys", command, *arguments, *self._options)


@pytest.fixture
async def admin(running: Running) -> Shell:
    """Give a shell that sends the first key."""
    first = Shell(running.client.url)
    said = await first.keys("create", "--name", "first", "--scope", "admin")
    assert (said.status, KEY.fullmatch(said.out) is not None) == (0, True)
    return Shell(running.client.url, said.out.strip())


async def test_a_key_is_printed_alone_and_that_it_must_be_kept(
    running: Running, admin: Shell
) -> None:
    said = await admin.keys("create", "--name", "wiki")
    assert said.status == 0
    assert KEY.fullmatch(said.out)
    assert "k2 'wiki' allows read on all collections" in said.err
    assert "can't be shown again" in said.err
    headers = {"X-Api-Key": said.out.strip()}
    (await running.client.get("/v1/limits", headers=headers)).ok()
    (await running.client.get("/v1/limits")).refused(401)


async def test_all_that_is_said_of_a_key_reaches_the_server(running: Running, admin: Shell) -> None:
    said = await admin.keys(
        *("create", "--name", "wiki", "--scope", "read", "--scope", "write", "--json"),
        *("--collection", "default", "--expires", "30d"),
    )
    made = said.json
    assert made["scopes"] == ["read", "write"]
    assert made["collections"] == ["default"]
    assert KEY.fullmatch(made["key"] + "\n")
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("8w", timedelta(weeks=8)),
        ("2999-01-31T12:00:00+02:00", datetime(2999, 1, 31, 10, tzinfo=UTC)),
        ("2999-01-31T12:00:00Z", datetime(2999, 1, 31, 12, tzinfo=UTC)),
        ("2999-01-31", datetime(2999, 1, 31).astimezone()),
    ],
)
def test_an_end_is_a_period_or_a_time(given: str, expected: timedelta | datetime) -> None:
    end = datetime.fromisoformat(read_end(given))
    if isinstance(expected, timedelta):
        expected += datetime.now(UTC)
    assert abs(end - expected) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "given", ["", "soon", "30", "30 d", "1000000d", "-3d", "2030-13-01", "3٣d", "99999999999999w"]
)
def test_an_end_that_is_none_is_told(given: str) -> None:
    with pytest.raises(InvalidInputError, match=f"--expires {given}: .*30d"):
        read_end(given)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--scope", "root"), "scopes[0]"),
        (("--collection", "none"), "there is no collection 'none'"),
        (("--scope", "read"), "the first API key must have the scope admin"),
        (("--expires", "2001-01-01"), "this time has passed"),
    ],
)
async def test_what_the_server_says_of_a_wrong_key_is_shown(
    running: Running, arguments: tuple[str, ...], told: str
) -> None:
    said = await Shell(running.client.url).keys("create", "--name", "a", *arguments)
    assert (said.status, said.out) == (1, "")
    assert told in said.err
    assert said.err.count("\n") == 1


def rows(said: Said) -> list[list[str]]:
    assert said.status == 0, said.err
    return [line.split("\t") for line in said.out.splitlines()]


async def test_keys_are_listed_in_columns_without_their_secrets(admin: Shell) -> None:
    made: Any = (
        await admin.keys(
            *("create", "--name", "wiki", "--collection", "default", "--json"),
            *("--expires", "2999-01-31T00:00:00Z"),
        )
    ).json
    said = await admin.keys("list")
    columns, first, second = rows(said)
    names = ["id", "name", "scopes", "collections", "created", "last used", "expires"]
    assert columns == names
    assert first[:4] == ["k1", "first", "admin", "all"]
    assert first[5:] != ["-", "-"]
    assert second[:5] == ["k2", "wiki", "read", "default", made["created_at"]]
    assert second[5:] == ["-", "2999-01-31T00:00:00Z"]
    assert made["key"][-48:] not in said.out
    listed = (await admin.keys("list", "--json")).json["keys"]
    assert listed[1] == {name: value for name, value in made.items() if name != "key"}


async def test_all_pages_of_keys_are_listed(running: Running, admin: Shell) -> None:
    names = [f"n{number}" for number in range(120)]
    for name in names:
        await running.memory.keys.create(name=name, scopes=["read"])
    assert [row[1] for row in rows(await admin.keys("list"))[1:]] == ["first", *names]


async def test_revoked_keys_are_gone(running: Running, admin: Shell) -> None:
    keys = [(await admin.keys("create", "--name", name)).out.strip() for name in "ab"]
    said = await admin.keys("revoke", "k2", "k3")
    assert (said.status, said.out) == (0, "k2 is revoked\nk3 is revoked\n")
    for key in keys:
        headers = {"X-Api-Key": key}
        (await running.client.get("/v1/limits", headers=headers)).refused(401)
    assert len(rows(await admin.keys("list"))) == 2


async def test_what_can_not_be_revoked_is_told(admin: Shell) -> None:
    await admin.keys("create", "--name", "other")
    said = await admin.keys("revoke", "k9")
    assert (said.status, said.err) == (1, "memoryd: there is no API key 'k9'\n")
    said = await admin.keys("revoke", "k1")
    assert said.status == 1
    assert "last API key" in said.err
    assert (await admin.keys("revoke", "k2", "k1", "--json")).out == (
        '{"deleted":"k2"}\n{"deleted":"k1"}\n'
    )


async def test_without_the_key_nothing_is_listed(running: Running, admin: Shell) -> None:
    said = await Shell(running.client.url).keys("list")
    assert (said.status, said.out) == (1, "")
    assert "API key is needed" in said.err
