"""The snippets of docs/compatibility.md, each run as it stands there, where its packages are."""

import ast
import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from vendors import NODE, SHELL, Runner, link_node_modules

_PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
_BLOCK = re.compile(
    r"^```(sh|python|js)\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)
_ENDINGS = {"python": ".py", "js": ".mjs", "sh": ".sh"}
_ENVIRONMENTS = {"python": "newest", "js": NODE, "sh": SHELL}
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

    @property
    def environment(self) -> str:
        """Where it runs."""
        return "litellm" if "litellm" in self.packages else _ENVIRONMENTS[self.language]

    def write(self, folder: Path, address: str) -> Path:
        """Write the script into `folder`, so that it asks the server at `address`."""
        script = folder / f"line-{self.line}{_ENDINGS[self.language]}"
        script.write_text(self.text.replace(_ADDRESS, address), encoding="utf-8")
        return script


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
async def said(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """Give what each snippet prints, once it has ended."""
    folder, address = tmp_path_factory.mktemp("snippets"), runner.url.rpartition("/")[2]
    link_node_modules(folder)
    return {each: runner.start(each.write(folder, address), each.environment) for each in SNIPPETS}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
async def test_a_snippet_does_what_the_page_says(said: Said, snippet: Snippet) -> None:
    text = (await said[snippet]).decode()
    assert text
    assert '"error"' not in text
    assert text == snippet.shown or not snippet.shown


def test_every_client_for_python_has_a_snippet() -> None:
    assert {name for snippet in SNIPPETS for name in snippet.packages} == _PACKAGES
