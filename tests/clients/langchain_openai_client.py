"""PyPI's langchain-openai as it sends texts."""

from functools import partial

from client_script import DIMENSIONS, MODEL, TEXTS, URL, refusal, show
from langchain_openai import OpenAIEmbeddings

connect = partial(
    OpenAIEmbeddings,
    base_url=f"{URL}/v1",
    api_key="any",
    check_embedding_ctx_length=False,
)
client = connect(model=MODEL)
show(
    one=client.embed_query(TEXTS[0]),
    batch=client.embed_documents(TEXTS),
    short=connect(model=MODEL, dimensions=DIMENSIONS).embed_query(TEXTS[0]),
    error=refusal(lambda: connect(model="nope").embed_query(TEXTS[0])),
)
