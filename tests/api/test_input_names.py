"""Errors about an input call it as the client did."""

from typing import Any

import pytest
from toys import CAT_ID, JUDGE, MAX_TOKENS
from wire import Client

LONG = "cat " * (2 * MAX_TOKENS)
UNKNOWN_ID = 10_000
TOKENS = {"type": "token_ids", "data": [UNKNOWN_ID]}


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/embeddings", {"model": "toy", "input": ["cat", [UNKNOWN_ID]]}, "input[1]"),
        ("/embedding", {"content": ["cat", [UNKNOWN_ID]]}, "content[1]"),
        ("/embedding", {"input": ["cat", [UNKNOWN_ID]]}, "input[1]"),
        ("/embedding", {"content": ["cat", LONG], "truncate": False}, "content[1]"),
        ("/embedding", {"model": "speller", "content": [[UNKNOWN_ID]]}, "content[0]"),
        ("/embed", {"inputs": ["cat", [UNKNOWN_ID]]}, "inputs[1]"),
        ("/embed", {"inputs": ["cat", LONG], "truncate": False}, "inputs[1]"),
        ("/embed_all", {"inputs": [[CAT_ID], [UNKNOWN_ID]]}, "inputs[1]"),
        ("/embed_all", {"inputs": ["cat", LONG], "truncate": False}, "inputs[1]"),
        ("/semantic_embed", {"representation": "symmetric", "prompt": [TOKENS]}, "prompt"),
        (
            "/batch_semantic_embed",
            {"representation": "symmetric", "prompts": ["cat", [TOKENS]]},
            "prompts[1]",
        ),
        ("/instructable_embed", {"instruction": "", "input": [TOKENS]}, "input"),
        (
            "/similarity",
            {
                "inputs": {"source_sentence": LONG, "sentences": ["cat"]},
                "parameters": {"truncate": False},
            },
            "inputs.source_sentence",
        ),
        (
            "/similarity",
            {
                "inputs": {"source_sentence": "cat", "sentences": ["cat", LONG]},
                "parameters": {"truncate": False},
            },
            "inputs.sentences[1]",
        ),
        (
            "/rerank",
            {"model": JUDGE, "query": "cat", "documents": ["cat", LONG], "truncate": False},
            "documents[1]",
        ),
        (
            "/rerank",
            {"model": JUDGE, "query": "cat", "texts": ["cat", LONG], "truncate": False},
            "texts[1]",
        ),
        ("/tokenize", {"content": ["cat", UNKNOWN_ID]}, "content"),
    ],
)
async def test_an_input_is_named_as_its_field_is(
    toys: Client, path: str, body: dict[str, Any], name: str
) -> None:
    answer = await toys.post(path, body)
    assert answer.status in (400, 413, 422), answer.data
    error = answer.json["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message.startswith((f"{name} ", f"{name}:")), message
    if isinstance(error, dict):
        assert error["param"] == name
