"""What a policy server tells of itself at `/metrics`, in the text format of Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from menura.serving.engine.errors import ServingError

#: The media type of `Metrics.exposition`.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds; from an answer of a small network to the first answer of a compiled one.
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64)
OK = "ok"


class Metrics:
    """The counts and times of one server, in a registry of its own, so that several servers share no numbers.

    Attributes:
        queue: how many requests wait for the policy.
        sessions: how many sessions are open.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "menura_request_seconds",
            "From a request's arrival to its answer, by door and outcome",
            ("door", "outcome"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._errors = Counter(
            "menura_errors", "Requests that were not answered with actions, by code", ("code",), registry=self._registry
        )
        self._rows = Histogram(
            "menura_batch_rows", "Requests that were answered in one batch", buckets=_ROWS, registry=self._registry
        )
        self._inference = Histogram(
            "menura_inference_seconds", "The policy's time for one batch", buckets=_SECONDS, registry=self._registry
        )
        self.queue = Gauge("menura_queue_length", "Requests that wait for the policy", registry=self._registry)
        self.sessions = Gauge("menura_sessions", "Sessions that are open", registry=self._registry)

    def observe_request(self, seconds: float, outcome: str = OK, *, door: str = "websocket") -> None:
        """A request that came by `door` was answered after `seconds`; `outcome` is `ok` or the code of its error."""
        self._requests.labels(door, outcome).observe(seconds)
        if outcome != OK:
            self._errors.labels(outcome).inc()

    @contextmanager
    def request(self, door: str) -> Iterator[None]:
        """Observes the request that is answered within the block, whatever becomes of it."""
        start = time.perf_counter()
        outcome = "broken"  # by an error that nobody foresaw
        try:
            yield
            outcome = OK
        except ServingError as error:
            outcome = error.code
            raise
        except (asyncio.CancelledError, ConnectionError):  # its client is gone
            outcome = "abandoned"
            raise
        finally:
            self.observe_request(time.perf_counter() - start, outcome, door=door)

    def count_error(self, code: str) -> None:
        """Something was refused before it became a request."""
        self._errors.labels(code).inc()

    def observe_batch(self, rows: int, seconds: float) -> None:
        """The policy answered `rows` requests together, in `seconds`."""
        self._rows.observe(rows)
        self._inference.observe(seconds)

    def exposition(self) -> bytes:
        """Everything, as Prometheus reads it (text format 0.0.4)."""
        return generate_latest(self._registry)
