"""How long a policy takes to answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from menura.policies.inference import Inference

_WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """Milliseconds from a raw observation to the physical chunk, by `repeats` predictions after a warm-up.

    Attributes:
        median, p99: of the whole.
        model: the median of the policy's own part, `select_action` on inputs that are ready.
        repeats: how many were measured.
    """

    median: float
    p99: float
    model: float
    repeats: int

    @property
    def outside(self) -> float:
        """The share of the median that is not the model: processing of observation and actions, in [0, 1]."""
        return max(0.0, 1.0 - self.model / self.median)


def measure_latency(policy: Inference, observation: Mapping[str, Any], *, repeats: int = 50) -> Latency:
    """Ask `policy` again and again for one observation (as of `Processor.prepare`, a batch of any size)."""
    whole, model = [], []
    rows = len(next(iter(value for key, value in observation.items() if key != "images")))
    drawn = [policy.generator(row) for row in range(rows)]
    generators = [generator for generator in drawn if generator is not None] or None
    for _ in range(_WARM_UP + repeats):
        start = time.perf_counter()
        inputs = policy.inputs(observation)
        ready = time.perf_counter()
        normalized = policy.infer(inputs, generator=generators)
        answered = time.perf_counter()
        policy.actions(normalized, observation)
        whole.append(time.perf_counter() - start)
        model.append(answered - ready)
    times, models = np.array(whole[_WARM_UP:]) * 1e3, np.array(model[_WARM_UP:]) * 1e3
    return Latency(float(np.median(times)), float(np.percentile(times, 99)), float(np.median(models)), repeats)
