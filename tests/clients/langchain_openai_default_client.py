"""PyPI's langchain-openai as it is: it sends token ids of cl100k, and "" by itself."""

from functools import partial

from client_script import DIMENSIONS, MODEL, TEXTS, URL, refusal, show
from langchain_openai import OpenAIEmbeddings

connect = partial(OpenAIEmbeddings, base_url=f"{URL}/v1", api_key="any")
client = connect(model="text-embedding-3-small")
show(
    one=client.embed_query(TEXTS[0]),
    batch=client.embed_documents(TEXTS),
    short=connect(model="text-embedding-3-small", dimensions=DIMENSIONS).embed_query(TEXTS[0]),
    error=refusal(lambda: connect(model=MODEL).embed_query(TEXTS[0] * 99)),
)
