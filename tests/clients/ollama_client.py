"""PyPI's ollama."""

import ollama
from client_script import DIMENSIONS, MODEL, TEXTS, URL, refusal, show

client = ollama.Client(host=URL)
show(
    one=client.embed(MODEL, TEXTS[0]).embeddings[0],
    batch=client.embed(MODEL, TEXTS).embeddings,
    short=client.embed(MODEL, TEXTS[0], dimensions=DIMENSIONS).embeddings[0],
    error=refusal(lambda: client.embed("nope", TEXTS[0])),
)
