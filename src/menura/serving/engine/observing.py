"""What an engine tells of itself, to whoever listens."""

from __future__ import annotations

from typing import Protocol


class Gauge(Protocol):
    """A number that goes up and down."""

    def set(self, value: float) -> None: ...


class EngineMetrics(Protocol):
    """`menura.serving.metrics.Metrics`, as far as the engine knows it."""

    @property
    def queue(self) -> Gauge: ...
    @property
    def sessions(self) -> Gauge: ...
    def observe_batch(self, rows: int, seconds: float) -> None: ...


class Unheard:
    """Metrics that nobody looks at."""

    @property
    def queue(self) -> Unheard:
        return self

    @property
    def sessions(self) -> Unheard:
        return self

    def set(self, value: float) -> None: ...
    def observe_batch(self, rows: int, seconds: float) -> None: ...
