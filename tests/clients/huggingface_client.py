"""PyPI's huggingface-hub: its InferenceClient posts to the URL itself, whatever the task."""

from client_script import DIMENSIONS, TEXTS, TOO_LONG, URL, refusal, show
from huggingface_hub import InferenceClient

client = InferenceClient(model=URL)
show(
    one=client.feature_extraction(TEXTS[0])[0].tolist(),
    batch=client.feature_extraction(TEXTS).tolist(),
    short=client.feature_extraction(TEXTS[0], dimensions=DIMENSIONS)[0].tolist(),
    similarity=client.sentence_similarity(TEXTS[0], other_sentences=TEXTS),
    error=refusal(lambda: client.feature_extraction(TOO_LONG, truncate=False)),
)
