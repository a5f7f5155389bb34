"""PyPI's langchain-ollama, which looks at start whether the model is there."""

from client_script import DIMENSIONS, MODEL, TEXTS, URL, refusal, show
from langchain_ollama import OllamaEmbeddings

client = OllamaEmbeddings(model=MODEL, base_url=URL, validate_model_on_init=True)
short = OllamaEmbeddings(model=MODEL, base_url=URL, dimensions=DIMENSIONS)
show(
    one=client.embed_query(TEXTS[0]),
    batch=client.embed_documents(TEXTS),
    short=short.embed_query(TEXTS[0]),
    error=refusal(lambda: OllamaEmbeddings(model="nope", base_url=URL).embed_query(TEXTS[0])),
)
