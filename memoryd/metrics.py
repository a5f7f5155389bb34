"""What is counted while memoryd works, under the names that /metrics shows.

Labels are never what a client chose: a model is named as memoryd names it, a route by its pattern.
"""

from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)

# When each series began: twice as many of them, for what no query asks.
disable_created_metrics()  # type: ignore[no-untyped-call] # it has no annotations

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WAIT_S = (0.0001, *_SECONDS)
_POWERS_OF_TWO = tuple(2**power for power in range(9))
_BATCH_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768)


class RequestMetrics:
    """Count the requests of HTTP."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make their series in `registry`."""
        self._requests = Counter(
            "memoryd_http_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "memoryd_http_request_duration_seconds",
            "From a request's headers to the end of its answer.",
            ("route", "method"),
            buckets=_SECONDS,
            registry=registry,
        )

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        self._requests.labels(route, method, status).inc()
        self._seconds.labels(route, method).observe(seconds)


_OUTCOMES = ("stored", "unchanged", "updated", "replaced", "skipped", "failed")


class DocumentMetrics:
    """Count what became of documents."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make their series in `registry`, each from 0 on."""
        self._documents = Counter(
            "memoryd_documents",
            "Documents settled, by what became of them.",
            ("status",),
            registry=registry,
        )
        for status in _OUTCOMES:
            self._documents.labels(status)

    def count(self, status: str) -> None:
        """Count a document that this process has settled."""
        self._documents.labels(status).inc()


class QueryCacheMetrics:
    """Count how often the vector of a query was kept."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make their series in `registry`, each from 0 on."""
        lookups = Counter(
            "memoryd_query_cache_lookups",
            "Vectors of queries that searches needed, by whether they were kept.",
            ("result",),
            registry=registry,
        )
        self._hits, self._misses = lookups.labels("hit"), lookups.labels("miss")

    def count(self, *, is_hit: bool) -> None:
        """Count a vector that a search needs."""
        (self._hits if is_hit else self._misses).inc()


class _QueueFamilies:
    """Hold the series that every queue of every model has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tokens = Counter(
            "memoryd_tokens",
            "Tokens encoded, special ones included.",
            ("model", "queue"),
            registry=registry,
        )

        def histogram(name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
            labels = ("model", "queue")
            return Histogram(name, documentation, labels, buckets=buckets, registry=registry)

        self.wait_seconds = histogram(
            "memoryd_queue_wait_seconds",
            "From when a request's inputs are tokenized until a lane takes the first of them.",
            _WAIT_S,
        )
        self.encode_seconds = histogram("memoryd_encode_seconds", "A batch in a lane.", _SECONDS)
        self.batch_inputs = histogram("memoryd_batch_inputs", "Inputs of a batch.", _POWERS_OF_TWO)
        self.batch_tokens = histogram("memoryd_batch_tokens", "Tokens of a batch.", _BATCH_TOKENS)


class QueueMetrics:
    """Count what one queue of a model's lanes does."""

    def __init__(self, families: _QueueFamilies, model: str, queue: str) -> None:
        """Take the series of that model and queue."""
        labels = (model, queue)
        self.wait_seconds = families.wait_seconds.labels(*labels)
        self._encode_seconds = families.encode_seconds.labels(*labels)
        self._batch_inputs = families.batch_inputs.labels(*labels)
        self._batch_tokens = families.batch_tokens.labels(*labels)
        self._tokens = families.tokens.labels(*labels)

    def count_batch(self, inputs: int, tokens: int, seconds: float) -> None:
        """Count a batch that a lane has encoded."""
        self._encode_seconds.observe(seconds)
        self._batch_inputs.observe(inputs)
        self._batch_tokens.observe(tokens)
        self._tokens.inc(tokens)


@dataclass(frozen=True)
class ModelMetrics:
    """Count the work of one model."""

    tokenize_seconds: Summary
    truncated_inputs: Counter
    bulk: QueueMetrics
    query: QueueMetrics
    dedicated: QueueMetrics
    """Of lanes that are made for one request."""


class Metrics:
    """Hold what is counted of one engine and of the HTTP that is served over it.

    The registry is its own, so that one process can have several.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = RequestMetrics(self.registry)
        self.documents = DocumentMetrics(self.registry)
        self.query_cache = QueryCacheMetrics(self.registry)
        self._queues = _QueueFamilies(self.registry)
        self._tokenize_seconds = Summary(
            "memoryd_tokenize_seconds",
            "Calls of a model's tokenizer.",
            ("model",),
            registry=self.registry,
        )
        self._truncated_inputs = Counter(
            "memoryd_truncated_inputs",
            "Inputs cut to what the model takes.",
            ("model",),
            registry=self.registry,
        )

    def of_model(self, name: str) -> ModelMetrics:
        """Return the series of the model that memoryd calls `name`."""
        return ModelMetrics(
            self._tokenize_seconds.labels(name),
            self._truncated_inputs.labels(name),
            *(QueueMetrics(self._queues, name, queue) for queue in ("bulk", "query", "dedicated")),
        )
