"""PyPI's litellm, as a client of OpenAI; base64 stays as it is."""

import base64
import struct
from functools import partial

import litellm
from client_script import DIMENSIONS, MODEL, TEXTS, URL, refusal, show

litellm.suppress_debug_info = True  # it prints advice where something fails
embed = partial(litellm.embedding, api_base=f"{URL}/v1", api_key="any")
client = partial(embed, f"openai/{MODEL}")
# It asks whether a model that isn't OpenAI's may be asked for dimensions.
shorten = partial(client, dimensions=DIMENSIONS, allowed_openai_params=["dimensions"])


def decode(encoded: str) -> list[float]:
    data = base64.b64decode(encoded)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


show(
    one=client(TEXTS[0]).data[0]["embedding"],
    batch=[item["embedding"] for item in client(TEXTS).data],
    short=shorten(TEXTS[0]).data[0]["embedding"],
    base64=[decode(item["embedding"]) for item in client(TEXTS, encoding_format="base64").data],
    error=refusal(lambda: embed("openai/nope", TEXTS[0])),
)
