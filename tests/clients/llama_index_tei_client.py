"""PyPI's llama-index-embeddings-text-embeddings-inference, which cannot ask for dimensions."""

from functools import partial

from client_script import MODEL, TEXTS, TOO_LONG, URL, refusal, show
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

connect = partial(TextEmbeddingsInference, model_name=MODEL, base_url=URL)
client = connect()
show(
    one=client.get_query_embedding(TEXTS[0]),
    batch=client.get_text_embedding_batch(TEXTS),
    # It looks for the vector of a text in whatever it is answered, whatever the status.
    error=refusal(lambda: connect(truncate_text=False).get_text_embedding(TOO_LONG)),
)
