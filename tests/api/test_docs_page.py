"""/docs shows the OpenAPI document, in a real browser that reaches no other server."""

import asyncio
import re
import shutil
import tempfile

import pytest
from lacking import skip_without
from servers import Serve
from wire import Client

from memoryd.api.routes import ROUTES

# The names of Debian's package, of Ubuntu's and of the vendor's own.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 60


async def dump(url: str) -> str:
    """Return the HTML that a browser made of a page, once its scripts are done."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        skip_without("chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--enable-logging=stderr",
            "--virtual-time-budget=20000",
            "--dump-dom",
            url,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(TIMEOUT_S):
            page, said = await process.communicate()
    complaints = [line for line in said.decode().splitlines() if "CONSOLE" in line]
    assert not complaints, complaints
    return page.decode()


async def test_a_browser_shows_every_operation_without_another_server(
    shared_client: Client,
) -> None:
    page = await dump(shared_client.url + "/docs")
    shown = set(re.findall(r'class="opblock-summary-path" data-path="([^"]+)"', page))
    wanted = {route.pattern for route in ROUTES}
    assert {path.replace("\u200b", "") for path in shown} == wanted
    assert "memoryd" in page
    assert "OAS 3.1" in page


async def test_an_operation_is_opened_with_its_fields_and_answers(shared_client: Client) -> None:
    page = await dump(
        shared_client.url + "/docs#/Documents/post-v1-collections-collection-documents"
    )
    text = re.sub(r"<[^>]+>", " ", page)
    for shown in (
        "Store documents: one or a batch in JSON",
        "DocumentBody",
        "on_conflict",
        "If-Match",
        "507",
    ):
        assert shown in text, shown


async def test_the_page_and_its_parts_come_from_here_alone(shared_client: Client) -> None:
    page = await shared_client.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self';" in policy
    assert "http" not in policy
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.data.decode())
    assert len(parts) == 4
    for part in parts:
        if not part.startswith("data:"):
            answer = await shared_client.get(f"/{part}")
            assert answer.status == 200
            assert len(answer.data) > 50
            kind = "css" if part.endswith(".css") else "javascript"
            assert answer.headers["Content-Type"].split(";")[0] == f"text/{kind}"
    assert "<script>" not in page.data.decode()


async def test_parts_are_kept_by_the_browser(shared_client: Client) -> None:
    path = "/docs/swagger-ui.css"
    first = await shared_client.get(path)
    again = await shared_client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status == 304


@pytest.mark.parametrize(
    "path", ["/docs/", "/docs/x", "/docs/../pyproject.toml", "/docs/%2e%2e%2f__init__.py"]
)
async def test_nothing_else_is_served_beside_them(shared_client: Client, path: str) -> None:
    (await shared_client.get(path)).refused(404)


async def test_they_want_a_key_where_all_do(serve: Serve) -> None:
    async with serve(api_key="s3cret") as running:
        for path in ("/docs", "/docs/start.js", "/docs/swagger-ui.css"):
            (await running.client.get(path)).refused(401)
            answer = await running.client.get(path, headers={"X-Api-Key": "s3cret"})
            assert answer.status == 200
