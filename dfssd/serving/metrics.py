"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

disable_created_metrics()  # each count would have a second line with the time of its birth

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)

TEXT_TYPE = CONTENT_TYPE_LATEST
"""Content type of :meth:`Metrics.text`."""


class Metrics:
    """Counts of one server, from its start on."""

    def __init__(self, waiting: Callable[[], int], model: Mapping[str, Any]) -> None:
        """Begin to count.

        Args:
            waiting: How many predictions are under way now.
            model: What is told of the network: words by name.
        """
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry, "namespace": "dfssd"}
        self._requests = Counter("requests", "Requests for a prediction, by status", ["status"], **own)
        self._latency = Histogram(
            "request_seconds", "From a request for a prediction to its answer", buckets=_SECONDS, **own
        )
        self._computing = Histogram("compute_seconds", "Time of the network for a batch", buckets=_SECONDS, **own)
        self._batches = Histogram("batch_images", "Images that were computed at once", buckets=_IMAGES, **own)
        self._images = Counter("images", "Images that were looked at, by verdict", ["verdict"], **own)
        for verdict in ("OK", "NG", "unreadable"):
            self._images.labels(verdict)
        self._boxes = Counter("boxes", "Boxes that were found, by class", ["class"], **own)
        Gauge("queue_length", "Predictions that are under way", **own).set_function(waiting)
        Info("model", "The network", **own).info({name: str(value or "") for name, value in model.items()})

    def request(self, status: int, seconds: float) -> None:
        """Count a request for a prediction with the status of its answer."""
        self._requests.labels(str(status)).inc()
        self._latency.observe(seconds)

    def batch(self, images: int, seconds: float) -> None:
        """Count what was computed at once."""
        self._batches.observe(images)
        self._computing.observe(seconds)

    def image(self, said: Mapping[str, Any]) -> None:
        """Count an image by what is said of it."""
        self._images.labels(said["verdict"]).inc()
        for box in said.get("boxes", ()):
            self._boxes.labels(box["class"]).inc()

    def text(self) -> bytes:
        """All counts in the text format of Prometheus."""
        return generate_latest(self._registry)
