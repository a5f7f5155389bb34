"""A model with lanes and a queue, and no engine around it."""

import asyncio

from memoryd.embeddings.engine import LONG_INPUT_BYTES
from memoryd.embeddings.lanes import open_lanes
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import Backend, ModelSpec, Tuning
from memoryd.metrics import Metrics


def open_model(
    backend: Backend,
    spec: ModelSpec,
    tuning: Tuning,
    *,
    max_waiting_requests: int = 512,
    long_input_bytes: int = LONG_INPUT_BYTES,
) -> EmbeddingModel:
    """Return the model over `backend`, which it will close."""
    return EmbeddingModel(
        spec,
        backend,
        open_lanes(backend, tuning),
        max_waiting_requests=max_waiting_requests,
        long_input_bytes=long_input_bytes,
        dedicated_turn=asyncio.Lock(),
        metrics=Metrics().of_model(spec.name),
    )
