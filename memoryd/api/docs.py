"""The page that shows the OpenAPI document: Swagger UI, from this machine alone."""

from pathlib import Path

from aiohttp import web
from openapi_ui_bundles import swagger_ui

_FOLDER = Path(swagger_ui.static_path)
# It runs no script but its own two, and asks no other server for anything. Icons are in the style
# sheet, as data: addresses.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>memoryd</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="docs/swagger-ui.css">
  </head>
  <body>
    <div id="page"></div>
    <script src="docs/swagger-ui-bundle.js"></script>
    <script src="docs/start.js"></script>
  </body>
</html>
"""
# Without a validator: it would send the document's address to another server.
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  validatorUrl: null,
});
"""


async def show(_request: web.Request) -> web.Response:
    """Show this document as a page."""
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
    return web.Response(text=_PAGE, content_type="text/html", headers=headers)


async def start(_request: web.Request) -> web.Response:
    """Answer the script that starts Swagger UI."""
    return web.Response(text=_START, content_type="text/javascript")


async def script(_request: web.Request) -> web.FileResponse:
    """Answer Swagger UI's script."""
    return _file("swagger-ui-bundle.js", "text/javascript")


async def style(_request: web.Request) -> web.FileResponse:
    """Answer Swagger UI's style sheet."""
    return _file("swagger-ui.css", "text/css")


def _file(name: str, content_type: str) -> web.FileResponse:
    headers = {"Content-Type": content_type, "Cache-Control": "max-age=86400"}
    return web.FileResponse(_FOLDER / name, headers=headers)
