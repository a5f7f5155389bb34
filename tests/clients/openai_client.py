"""PyPI's openai, which asks for base64 unless told otherwise; the same for its versions."""

import openai
from client_script import DIMENSIONS, MODEL, TEXTS, URL, refusal, show

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="any")


def embed(inputs: str | list[str], **options: int | str) -> list[list[float]]:
    answer = client.embeddings.create(model=MODEL, input=inputs, **options)
    return [item.embedding for item in answer.data]


show(
    version=openai.__version__,
    one=embed(TEXTS[0], encoding_format="float")[0],
    batch=embed(TEXTS, encoding_format="float"),
    short=embed(TEXTS[0], dimensions=DIMENSIONS)[0],
    base64=embed(TEXTS),
    error=refusal(lambda: client.embeddings.create(model="nope", input=TEXTS[0])),
)
