"""What an evaluation found: every episode, the success rate with its interval, the protocol; `results.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from menura.errors import DataError
from menura.evaluation.confidence_sequences import rate_sequence
from menura.evaluation.protocol import fingerprint
from menura.evaluation.statistics import wilson
from menura.files import read_json, write_json

FILE_NAME = "results.json"
IN_RUN = "evaluation"  # where a run keeps its evaluation unless told otherwise
_EVALUATE = "Evaluate it first: menura eval."
_FORMAT = 1


@dataclass(frozen=True)
class EpisodeResult:
    """One rollout.

    Attributes:
        index: its number, from 0.
        seed: the seed its environment was reset with.
        success: whether `info["success"]` was true at some step. Not the same as `terminated`.
        return_: the sum of rewards; None where that is not finite.
        steps: steps executed.
        time_s: simulated seconds, steps / fps.
        video: path of its video, relative to the results; None where none was recorded.
        measures: what else its environment measures, each the largest of its steps; and the session, of answers that
            take time: their mean `delay_s`, the `held_share` of its steps, and `inferences`.
    """

    index: int
    seed: int
    success: bool
    return_: float | None
    steps: int
    time_s: float
    video: str | None = None
    measures: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Results:
    """The outcome of one evaluation.

    Attributes:
        episodes: the finished ones, by index.
        asked: how many were asked for; more than `len(episodes)` only while running or after an interruption.
        protocol: everything but the policy that shapes an outcome (see `protocol.py`).
        policy: `name` and `hash` of what was evaluated, and what else its maker says.
        run: how it was run: processes, versions, wall time. None of it shapes an outcome.
        baselines: name (`random`, `blind`) -> its results under the same protocol.
        perturbed: what was changed (`noise=0.05`) -> results of the same episodes under it.
        stopping: the rule that might have ended it early, what it makes of these episodes, and `stopped`: its reason
            in words, None where all episodes were run; None when their number was fixed beforehand.
    """

    episodes: tuple[EpisodeResult, ...]
    asked: int
    protocol: Mapping[str, Any]
    policy: Mapping[str, Any]
    run: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Results] = field(default_factory=dict)
    perturbed: Mapping[str, Results] = field(default_factory=dict)
    stopping: Mapping[str, Any] | None = None

    @property
    def successes(self) -> int:
        return sum(episode.success for episode in self.episodes)

    @property
    def success_rate(self) -> float | None:
        """Successes / finished episodes; None before the first."""
        return self.successes / len(self.episodes) if self.episodes else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the success rate: Wilson's; with a stopping rule the one that stays valid under it."""
        return interval_of(self.stopping is not None)(self.successes, len(self.episodes))

    @property
    def measures(self) -> dict[str, float]:
        """The mean of each measure over the episodes that have it."""
        names = dict.fromkeys(name for episode in self.episodes for name in episode.measures)
        return {name: fmean(e.measures[name] for e in self.episodes if name in e.measures) for name in names}

    @property
    def fingerprint(self) -> str:
        """The hash of the protocol: two results are comparable when theirs agree."""
        return fingerprint(self.protocol)

    @property
    def complete(self) -> bool:
        return len(self.episodes) == self.asked or bool(self.stopping and self.stopping["stopped"])

    def __str__(self) -> str:
        low, high = self.interval
        told = f"{self.successes} of {len(self.episodes)} succeed ({low:.0%} to {high:.0%} at 95 % confidence)"
        if self.stopping is None or self.stopping["stopped"] is None:
            return told
        return f"{told}; stopped after {len(self.episodes)} of {self.asked}: {self.stopping['stopped']}"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict without NaN; `from_dict` reads it back equal."""
        return {
            "format": _FORMAT,
            "success_rate": self.success_rate,
            "interval": list(self.interval),
            "successes": self.successes,
            "measures": self.measures,
            "asked": self.asked,
            "fingerprint": self.fingerprint,
            "policy": dict(self.policy),
            "protocol": dict(self.protocol),
            "run": dict(self.run),
            "stopping": dict(self.stopping) if self.stopping is not None else None,
            "baselines": {name: results.to_dict() for name, results in self.baselines.items()},
            "perturbed": {name: results.to_dict() for name, results in self.perturbed.items()},
            "episodes": [_episode_to_dict(episode) for episode in self.episodes],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Results:
        if data.get("format") != _FORMAT:
            raise DataError(
                f"results: expected format {_FORMAT}, got {data.get('format')!r}. "
                "They were written by another version of Menura; evaluate again."
            )
        return cls(
            episodes=tuple(_episode_from_dict(episode) for episode in data["episodes"]),
            asked=int(data["asked"]),
            protocol=data["protocol"],
            policy=data["policy"],
            run=data.get("run", {}),
            baselines={name: cls.from_dict(results) for name, results in data.get("baselines", {}).items()},
            perturbed={name: cls.from_dict(results) for name, results in data.get("perturbed", {}).items()},
            stopping=data.get("stopping"),
        )

    def save(self, directory: str | Path) -> Path:
        """Writes `<directory>/results.json`: the old file or the new one, never half of it."""
        path = Path(directory) / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_dict())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Reads a `results.json`, or the one in a directory, or the one of a run's last evaluation."""
        path = Path(path)
        if path.is_dir():
            inside = [path / FILE_NAME, path / IN_RUN / FILE_NAME]
            found = next((file for file in inside if file.exists()), None)
            if found is None:
                raise DataError(f"results: expected {inside[0]} or {inside[1]}, got neither. {_EVALUATE}")
            path = found
        elif not path.exists():
            raise DataError(f"results: expected a run, results.json or its folder, got nothing at {path}. {_EVALUATE}")
        data = read_json(path, DataError)
        try:
            return cls.from_dict(data)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"results: expected the fields of an evaluation in {path}, got {error!r}.") from error


def interval_of(stopping: bool) -> Callable[..., tuple[float, float]]:
    """(successes, episodes, level=0.95) -> the interval; `stopping`: of an evaluation that a rule may end early."""
    return rate_sequence if stopping else wilson


def _episode_to_dict(episode: EpisodeResult) -> dict[str, Any]:
    values = asdict(episode)
    values["return"] = values.pop("return_")
    return values


def _episode_from_dict(values: Mapping[str, Any]) -> EpisodeResult:
    rest = {key: value for key, value in values.items() if key != "return"}
    return EpisodeResult(return_=values["return"], **rest)


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None
