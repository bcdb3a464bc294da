"""How long an answer takes: a number, or a distribution that each inference draws from. Torch-free."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from menura.errors import ConfigError, did_you_mean

_UNITS = {"ms": 1e-3, "s": 1.0}
_DURATION = re.compile(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*([a-zµ]*)\s*", re.IGNORECASE)
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*")
_EXAMPLE = 'Write "120ms", "0.12s" or "normal(120ms, 30ms)".'


@dataclass(frozen=True)
class LatencyModel:
    """Seconds from the capture of an observation until its answer is there.

    Attributes:
        kind: `constant` (seconds); `normal` (mean, standard deviation; what falls below 0 counts as 0); `uniform` (low,
            high); `lognormal` (mean and standard deviation of the delay itself).
        seconds: the numbers of that kind, in order.
    """

    kind: str
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, text: str) -> LatencyModel:
        """From `"120ms"`, `"0.12s"`, `"normal(120ms, 30ms)"`, `"uniform(80ms, 160ms)"`, `"lognormal(120ms, 30ms)"`.

        Raises:
            ConfigError: no such distribution, not its numbers, or a number without a unit.
        """
        if (call := _CALL.fullmatch(text)) is None:
            return cls.constant(_seconds(text, text))
        kind, inside = call.groups()
        if kind not in _DRAWN:
            raise ConfigError(
                f"latency {text!r}: expected one of {', '.join(_DRAWN)}, got {kind!r}"
                f"{did_you_mean(kind, _DRAWN) or '. ' + _EXAMPLE}"
            )
        parts = inside.split(",")
        if len(parts) != 2:
            raise ConfigError(f"latency {text!r}: expected two durations in {kind}(…), got {len(parts)}. {_EXAMPLE}")
        first, second = (_seconds(part, text) for part in parts)
        if kind == "uniform" and second < first:
            raise ConfigError(f"latency {text!r}: expected the lower end first. Exchange them.")
        if kind == "lognormal" and first == 0:
            raise ConfigError(f"latency {text!r}: expected a mean above 0, got 0.")
        return cls(kind, (first, second))

    @classmethod
    def constant(cls, seconds: float) -> LatencyModel:
        """Always the same."""
        return cls("constant", (seconds,))

    def draw(self, random: np.random.Generator) -> float:
        """Seconds, at least 0."""
        if self.kind == "constant":
            return self.seconds[0]
        return max(0.0, float(_DRAWN[self.kind](random, *self.seconds)))

    def __str__(self) -> str:
        """As `of` reads it, in milliseconds."""
        numbers = ", ".join(f"{1e3 * value:g}ms" for value in self.seconds)
        return numbers if self.kind == "constant" else f"{self.kind}({numbers})"


def _lognormal(random: np.random.Generator, mean: float, deviation: float) -> float:
    variance = math.log1p((deviation / mean) ** 2)  # of the logarithm
    return random.lognormal(math.log(mean) - variance / 2, math.sqrt(variance))


_DRAWN: Mapping[str, Callable[[np.random.Generator, float, float], float]] = {
    "normal": lambda random, mean, deviation: random.normal(mean, deviation),
    "uniform": lambda random, low, high: random.uniform(low, high),
    "lognormal": _lognormal,
}


def _seconds(part: str, text: str) -> float:
    found = _DURATION.fullmatch(part)
    if found is None:
        raise ConfigError(f"latency {text!r}: expected a duration of at least 0, got {part.strip()!r}. {_EXAMPLE}")
    number, unit = found.groups()
    if unit not in _UNITS:
        got = f"the unit {unit!r}{did_you_mean(unit, _UNITS) or '.'}" if unit else f"{number} without a unit."
        raise ConfigError(f"latency {text!r}: expected ms or s, got {got} {_EXAMPLE}")
    try:
        return float(number) * _UNITS[unit]
    except ValueError:
        raise ConfigError(f"latency {text!r}: expected a number, got {number!r}. {_EXAMPLE}") from None
