"""What the fixtures hand out: tiny models to open."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from memoryd.embeddings.model import EmbeddingModel

OpenTiny = Callable[..., AbstractAsyncContextManager[EmbeddingModel]]
