"""PyPI's litellm, as a client of Ollama."""

from functools import partial

import litellm
from client_script import DIMENSIONS, MODEL, TEXTS, URL, refusal, show

litellm.suppress_debug_info = True  # it prints advice where something fails
embed = partial(litellm.embedding, api_base=URL)
client = partial(embed, f"ollama/{MODEL}")
show(
    one=client(TEXTS[:1]).data[0]["embedding"],
    batch=[item["embedding"] for item in client(TEXTS).data],
    short=client(TEXTS[:1], dimensions=DIMENSIONS).data[0]["embedding"],
    error=refusal(lambda: embed("ollama/nope", TEXTS[:1])),
)
