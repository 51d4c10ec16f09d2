"""What Prometheus reads: histograms of where a request's time goes, and counts of everything that goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from vivace.serve.batching.queue import Dropped

SECONDS = (
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 16.0,
    32.0,
)  # fmt: skip
SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._request = Histogram(
            "vivace_request_seconds", "From a request's headers to its answer.", buckets=SECONDS, registry=self.registry
        )
        self._queue = Histogram(
            "vivace_queue_seconds", "From admission to the worker.", buckets=SECONDS, registry=self.registry
        )
        self._compute = Histogram(
            "vivace_compute_seconds", "One call of the program.", buckets=SECONDS, registry=self.registry
        )
        self._batch = Histogram(
            "vivace_batch_size", "Samples in one call of the program.", buckets=SAMPLES, registry=self.registry
        )
        self._requests = Counter("vivace_requests", "Answers by status code.", ["code"], registry=self.registry)
        self._rejected = Counter("vivace_rejected", "Refused requests.", ["reason"], registry=self.registry)
        self._dropped = Counter("vivace_dropped", "Left before compute.", ["reason"], registry=self.registry)
        self._reruns = Counter("vivace_batch_reruns", "Batches computed again, one by one.", registry=self.registry)
        self._restarts = Counter("vivace_worker_restarts", "Workers started anew.", registry=self.registry)
        self._reloads = Counter("vivace_reloads", "Changes of artifact.", ["result"], registry=self.registry)
        self._info = Gauge(
            "vivace_model_info", "1 for what is served.", ["name", "digest", "plan"], registry=self.registry
        )
        self._of_code: dict[int, Counter] = {}
        self._resident = Gauge("vivace_resident_bytes", "Memory of server and workers.", registry=self.registry)
        self._resident.set_function(_resident_bytes)

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A gauge whose value is read when Prometheus asks."""
        Gauge(name, meaning, registry=self.registry).set_function(read)

    def answered(self, code: int, seconds: float) -> None:
        """A request was answered."""
        if code not in self._of_code:
            self._of_code[code] = self._requests.labels(str(code))
        self._of_code[code].inc()
        self._request.observe(seconds)

    def rejected(self, reason: str) -> None:
        """A request was refused."""
        self._rejected.labels(reason).inc()

    def computed(self, samples: int, compute_seconds: float, queue_seconds: Sequence[float]) -> None:
        """A batch was computed."""
        self._batch.observe(samples)
        self._compute.observe(compute_seconds)
        for seconds in queue_seconds:
            self._queue.observe(seconds)

    def dropped(self, why: Dropped) -> None:
        """A request left the queue without being computed."""
        self._dropped.labels(why.value).inc()

    def rerun(self) -> None:
        """The members of a batch that failed are computed alone."""
        self._reruns.inc()

    def restarted(self) -> None:
        """A worker was started in the place of another."""
        self._restarts.inc()

    def reloaded(self, succeeded: bool) -> None:
        """Another artifact was to be served."""
        self._reloads.labels("ok" if succeeded else "failed").inc()

    def serves(self, name: str, digest: str, plan: str) -> None:
        """What is served from now on."""
        self._info.clear()
        self._info.labels(name, digest[:12], plan).set(1)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


def _resident_bytes() -> float:
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return float(total)
