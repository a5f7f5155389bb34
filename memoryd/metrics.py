"""What is counted while memoryd works, under the names that /metrics shows.

Labels are never what a client chose: a model is named as memoryd names it, a route by its pattern.
"""

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

_REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCH_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WAIT_S = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_POWERS_OF_TWO = tuple(2**power for power in range(9))
_BATCH_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768)


class QueueMetrics:
    """Count what one queue of a model's lanes does."""

    def __init__(self, metrics: "Metrics", model: str, queue: str) -> None:
        """Take the series of that model and queue."""
        labels = (model, queue)
        self.wait_seconds = metrics.wait_seconds.labels(*labels)
        self._encode_seconds = metrics.encode_seconds.labels(*labels)
        self._batch_inputs = metrics.batch_inputs.labels(*labels)
        self._batch_tokens = metrics.batch_tokens.labels(*labels)
        self._tokens = metrics.tokens.labels(*labels)

    def count_batch(self, inputs: int, tokens: int, seconds: float) -> None:
        """Count a batch that a lane has encoded."""
        self._encode_seconds.observe(seconds)
        self._batch_inputs.observe(inputs)
        self._batch_tokens.observe(tokens)
        self._tokens.inc(tokens)


class ModelMetrics:
    """Count the work of one model."""

    def __init__(self, metrics: "Metrics", model: str) -> None:
        """Take the series of the model that memoryd calls `model`."""
        self.tokenize_seconds = metrics.tokenize_seconds.labels(model)
        self.truncated_inputs = metrics.truncated_inputs.labels(model)
        self.bulk = QueueMetrics(metrics, model, "bulk")
        self.query = QueueMetrics(metrics, model, "query")
        self.apart = QueueMetrics(metrics, model, "apart")


class Metrics:
    """Hold what is counted of one engine and of the HTTP that is served over it.

    The registry is its own, so that one process can have several.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter(
            "memoryd_http_requests", "Requests answered.", "route", "method", "status"
        )
        self.request_seconds = self._histogram(
            "memoryd_http_request_duration_seconds",
            "From a request's headers to the end of its answer.",
            _REQUEST_S,
            "route",
            "method",
        )
        self.wait_seconds = self._histogram(
            "memoryd_queue_wait_seconds",
            "From when a request's inputs are tokenized until the first of them is encoded.",
            _WAIT_S,
            "model",
            "queue",
        )
        self.encode_seconds = self._histogram(
            "memoryd_encode_seconds", "A batch in a lane.", _BATCH_S, "model", "queue"
        )
        self.batch_inputs = self._histogram(
            "memoryd_batch_inputs", "Inputs of a batch.", _POWERS_OF_TWO, "model", "queue"
        )
        self.batch_tokens = self._histogram(
            "memoryd_batch_tokens", "Tokens of a batch.", _BATCH_TOKENS, "model", "queue"
        )
        self.tokens = self._counter(
            "memoryd_tokens", "Tokens encoded, special ones included.", "model", "queue"
        )
        self.tokenize_seconds = Summary(
            "memoryd_tokenize_seconds",
            "Calls of a model's tokenizer.",
            ("model",),
            registry=self.registry,
        )
        self.truncated_inputs = self._counter(
            "memoryd_truncated_inputs", "Inputs cut to what the model takes.", "model"
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _histogram(
        self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, documentation, labels, buckets=buckets, registry=self.registry)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        self.requests.labels(route, method, status).inc()
        self.request_seconds.labels(route, method).observe(seconds)
