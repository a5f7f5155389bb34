"""The snippets of docs/compatibility.md, each run as it stands there, where its packages are."""

import ast
import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from servers import Running
from vendors import Run, link_node_modules, running

_PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
_BLOCK = re.compile(
    r"^```(sh|python|js)\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)
_NAMES = {"python": "snippet.py", "js": "snippet.mjs", "sh": "snippet.sh"}
_ENVIRONMENTS = {"python": "newest", "js": "node", "sh": "shell"}
_ADDRESS = "localhost:8765"
_PACKAGES = {
    "aleph_alpha_client",
    "huggingface_hub",
    "langchain_ollama",
    "langchain_openai",
    "litellm",
    "llama_index.embeddings.ollama",
    "llama_index.embeddings.openai",
    "llama_index.embeddings.text_embeddings_inference",
    "ollama",
    "openai",
}


@dataclass(frozen=True)
class Snippet:
    """Hold a block of the page, and what it prints where the page tells."""

    language: str
    text: str
    shown: str
    line: int

    def __str__(self) -> str:
        return f"{self.language} in line {self.line}"

    @property
    def packages(self) -> set[str]:
        """What a snippet in Python imports."""
        nodes = ast.walk(ast.parse(self.text)) if self.language == "python" else ()
        return {name for node in nodes for name in _imported(node)}

    def run(self, folder: Path, address: str) -> Run:
        """Write the script into a new folder, so that it asks the server at `address`."""
        folder.mkdir()
        link_node_modules(folder)
        script = folder / _NAMES[self.language]
        script.write_text(self.text.replace(_ADDRESS, address), encoding="utf-8")
        environment = _ENVIRONMENTS[self.language]
        return Run(script, "litellm" if "litellm" in self.packages else environment)


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [each.name for each in names]
        case ast.ImportFrom(module=str(module)):
            return [module]
        case _:
            return []


def _read_page() -> Iterator[Snippet]:
    page = _PAGE.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(page):
        language, text, shown = block.groups(default="")
        if _ADDRESS in text:  # any other has a server of its own: see test_compatibility.py
            yield Snippet(language, text, shown, page.count("\n", 0, block.start()) + 1)


SNIPPETS = tuple(_read_page())

Said = dict[Snippet, asyncio.Task[bytes]]


@pytest_asyncio.fixture(scope="session")
async def said(served: Running, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Said]:
    """Give what each snippet prints, once it has ended."""
    folder, address = tmp_path_factory.mktemp("snippets"), served.client.url.rpartition("/")[2]
    runs = {each: each.run(folder / str(each.line), address) for each in SNIPPETS}
    async with running(runs) as tasks:
        yield tasks


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
async def test_a_snippet_does_what_the_page_says(said: Said, snippet: Snippet) -> None:
    text = (await said[snippet]).decode()
    assert text
    assert '"error"' not in text
    assert text == snippet.shown or not snippet.shown


def test_every_client_for_python_has_a_snippet() -> None:
    assert {name for snippet in SNIPPETS for name in snippet.packages} == _PACKAGES
