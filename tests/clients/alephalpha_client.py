"""PyPI's aleph-alpha-client, whose host is given with and without /v1; base64 stays as it is."""

import base64

import numpy as np
from aleph_alpha_client import Client, EmbeddingV2Request
from client_script import DIMENSIONS, MODEL, TEXTS, URL, refusal, show

client = Client("any", f"{URL}/v1")
bare = Client("any", URL, hosting="aleph-alpha", nice=True, tags=["t"])


def embed(by: Client, inputs: str | list[str], **options: int | str) -> list[list[float]]:
    answer = by.embeddings(EmbeddingV2Request(input=inputs, **options), model=MODEL)
    return [item.embedding for item in answer.data]


def embed_base64(inputs: list[str]) -> list[list[float]]:
    return [
        np.frombuffer(base64.b64decode(row), "<f4").tolist()
        for row in embed(client, inputs, encoding_format="base64")
    ]


client.validate_version()
show(
    one=embed(client, TEXTS[0])[0],
    batch=embed(bare, TEXTS),
    short=embed(client, TEXTS[0], dimensions=DIMENSIONS)[0],
    base64=embed_base64(TEXTS),
    error=refusal(lambda: client.embeddings(EmbeddingV2Request(input=[]), model=MODEL)),
)
