"""PyPI's llama-index-embeddings-ollama, which cannot ask for dimensions."""

from client_script import MODEL, TEXTS, URL, refusal, show
from llama_index.embeddings.ollama import OllamaEmbedding

client = OllamaEmbedding(model_name=MODEL, base_url=URL)
unknown = OllamaEmbedding(model_name="nope", base_url=URL)
show(
    one=client.get_query_embedding(TEXTS[0]),
    batch=client.get_text_embedding_batch(TEXTS),
    error=refusal(lambda: unknown.get_query_embedding(TEXTS[0])),
)
