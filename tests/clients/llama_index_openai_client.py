"""PyPI's llama-index-embeddings-openai, which takes a model that is not OpenAI's by model_name."""

from functools import partial

from client_script import DIMENSIONS, MODEL, TEXTS, URL, refusal, show
from llama_index.embeddings.openai import OpenAIEmbedding

connect = partial(OpenAIEmbedding, api_base=f"{URL}/v1", api_key="any")
client = connect(model_name=MODEL)
show(
    one=client.get_query_embedding(TEXTS[0]),
    batch=client.get_text_embedding_batch(TEXTS),
    short=connect(model_name=MODEL, dimensions=DIMENSIONS).get_query_embedding(TEXTS[0]),
    error=refusal(lambda: connect(model_name="nope").get_query_embedding(TEXTS[0])),
)
