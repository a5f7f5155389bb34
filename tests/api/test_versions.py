"""If-Match: a write happens to the version that the client has seen, or not at all."""

import asyncio
from typing import Any

import pytest
from wire import Answer, Client

DOCUMENTS = "/v1/collections/default/documents"


async def post(client: Client, version: str, **document: Any) -> Answer:
    return await client.post(DOCUMENTS, document, headers={"If-Match": version})


async def delete(client: Client, id_: str, version: str) -> Answer:
    return await client.ask("DELETE", f"{DOCUMENTS}/{id_}", headers={"If-Match": version})


async def make_versions(client: Client, *texts: str) -> None:
    """Store document `a`, a version per text."""
    for number, text in enumerate(texts, 1):
        assert (await client.store(id="a", text=text))["version"] == number


async def check(client: Client, text: str, version: int) -> None:
    shown = (await client.get(f"{DOCUMENTS}/a")).ok()
    assert (shown["text"], shown["version"]) == (text, version)


@pytest.mark.parametrize("version", ["1", '"1"', "4", '"4"'])
async def test_a_stale_version_is_a_conflict_and_changes_nothing(
    client: Client, version: str
) -> None:
    await make_versions(client, "cat", "dog", "fish")
    for document in (
        {"id": "a", "text": "horse"},
        {"id": "a", "text": "fish", "tags": ["x"]},
        {"id": "a", "text": "fish"},
        {"id": "a", "text": "horse", "on_conflict": "skip"},
    ):
        (await post(client, version, **document)).refused(409, "conflict")
    (await delete(client, "a", version)).refused(409, "conflict")
    await check(client, "fish", 3)
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["tags"] == []


@pytest.mark.parametrize("form", ["{}", '"{}"'])
async def test_the_right_version_is_written_and_deleted(client: Client, form: str) -> None:
    await make_versions(client, "cat", "dog", "fish")
    outcome = (await post(client, form.format(3), id="a", text="horse")).ok()["documents"][0]
    assert (outcome["status"], outcome["version"]) == ("replaced", 4)
    outcome = (await post(client, form.format(4), id="a", text="horse", tags=["x"])).ok()
    assert outcome["documents"][0]["status"] == "updated"
    outcome = (await post(client, form.format(5), id="a", text="horse", tags=["x"])).ok()
    assert outcome["documents"][0]["status"] == "unchanged"
    await check(client, "horse", 5)
    assert (await delete(client, "a", form.format(5))).ok() == {"deleted": 1}
    assert (await client.get(f"{DOCUMENTS}/a")).status == 404


async def test_a_version_of_what_is_not_there_is_a_conflict(client: Client) -> None:
    (await post(client, "1", id="a", text="cat")).refused(409, "conflict")
    (await delete(client, "a", "1")).refused(409, "conflict")
    assert (await client.get("/v1/collections/default")).ok()["documents"] == 0


async def test_a_version_that_is_no_number_is_refused(client: Client) -> None:
    await make_versions(client, "cat", "dog", "fish")
    for version in ("x", "1.5", '"x"', '"', "1 2", "1,2", "٣", "", "0x3", "3e0", "3_0"):
        (await post(client, version, id="a", text="horse")).refused(400, "invalid_value")
        (await delete(client, "a", version)).refused(400, "invalid_value")
        await check(client, "fish", 3)


async def test_a_number_beyond_all_versions_is_refused_either_way(client: Client) -> None:
    await make_versions(client, "cat")
    for version in ("0", "2147483648", "9" * 19, "9" * 40, "9" * 5000, "-1"):
        assert (await post(client, version, id="a", text="dog")).status in (400, 409)
        assert (await delete(client, "a", version)).status in (400, 409)
    await check(client, "cat", 1)


async def test_of_many_writers_that_saw_one_version_one_writes(client: Client) -> None:
    await make_versions(client, "cat")
    texts = [f"dog {number}" for number in range(8)]
    answers = await asyncio.gather(*(post(client, "1", id="a", text=text) for text in texts))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    winner = texts[[answer.status for answer in answers].index(200)]
    await check(client, winner, 2)


async def test_a_writer_and_a_deleter_that_saw_one_version_do_not_both_win(client: Client) -> None:
    for _ in range(5):
        outcome = await client.store(id="a", text="cat")
        version = str(outcome["version"])
        written, deleted = await asyncio.gather(
            post(client, version, id="a", text="dog"), delete(client, "a", version)
        )
        assert sorted((written.status, deleted.status)) == [200, 409]
        assert (await client.get(f"{DOCUMENTS}/a")).status == (
            404 if deleted.status == 200 else 200
        )
        await client.delete(f"{DOCUMENTS}/a")


async def test_without_a_version_everything_is_as_ever(client: Client) -> None:
    await make_versions(client, "cat", "dog")
    assert (await client.delete(f"{DOCUMENTS}/a")).ok() == {"deleted": 1}
    (await client.delete(f"{DOCUMENTS}/a")).refused(404, "not_found")


OTHER = "/v1/collections/other"
OWN_ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/v1/limits", None),
    ("POST", "/v1/collections", b'{"name": "new"}'),
    ("GET", "/v1/collections", None),
    ("GET", OTHER, None),
    ("PATCH", OTHER, b'{"metadata": {"x": 1}}'),
    ("POST", f"{OTHER}/aliases", b'{"alias": "alias"}'),
    ("POST", f"{OTHER}/documents", b'{"id": "new", "text": "cat"}'),
    ("POST", f"{OTHER}/documents", b'{"documents": [{"id": "new", "text": "cat"}]}'),
    ("GET", f"{OTHER}/documents", None),
    ("GET", f"{OTHER}/documents/a", None),
    ("GET", f"{OTHER}/documents/a/chunks", None),
    ("POST", f"{OTHER}/search", b'{"query": "cat"}'),
    ("GET", f"{OTHER}/search", None),
    ("DELETE", f"{OTHER}/documents/a", None),
    ("DELETE", OTHER, None),
]


@pytest.mark.parametrize("parameter", ["wiat=false", "sort=x", "x"])
async def test_an_unknown_parameter_is_refused_at_every_own_route(
    client: Client, parameter: str
) -> None:
    (await client.post("/v1/collections", {"name": "other"})).ok(201)
    await client.store("other", id="a", text="cat")
    name = parameter.partition("=")[0]
    wrong: dict[str, Any] = {}
    for method, path, data in OWN_ROUTES:
        start = "?q=cat&" if path.endswith("/search") and method == "GET" else "?"
        answer = await client.ask(method, f"{path}{start}{parameter}", data=data)
        error = answer.json.get("error") or {}
        if (answer.status, error.get("code"), error.get("param")) != (400, "unknown_field", name):
            wrong[f"{method} {path}"] = (answer.status, error)
    assert wrong == {}
    described = (await client.get(OTHER)).ok()
    assert (described["documents"], described["metadata"], described["aliases"]) == (1, {}, [])
    assert len((await client.get("/v1/collections")).ok()["collections"]) == 2


async def test_known_parameters_are_taken_where_they_belong(client: Client) -> None:
    await client.store(id="a", text="cat")
    (await client.post(f"{DOCUMENTS}?wait=true", {"id": "b", "text": "dog"})).ok()
    (await client.get("/v1/collections?limit=5")).ok()
    (await client.get(f"{DOCUMENTS}?limit=5")).ok()
    (await client.get(f"{DOCUMENTS}/a/chunks?limit=5")).ok()
    for path in (f"{DOCUMENTS}/a?limit=5", "/v1/limits?limit=5", f"{DOCUMENTS}?q=cat"):
        (await client.get(path)).refused(400, "unknown_field")
