"""What a check of a dataset found. JSON-able; printed by the command line. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
#: From worst to least. An error makes training wrong; a warning makes it worse; a note is worth knowing.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_SHOWN_EPISODES = 6
_SHOWN_NAMES = 6


@dataclass(frozen=True)
class Place:
    """Where a fault lies.

    Attributes:
        episode: its number in the dataset.
        frames: (start, stop): frames `start … stop - 1`; None for the whole episode.
    """

    episode: int
    frames: tuple[int, int] | None = None


@dataclass(frozen=True)
class Finding:
    """One fault, wherever in the dataset it lies.

    Attributes:
        kind: one word for the fault, the same in every version (`nan`, `jump`, `frozen_camera`, …).
        severity: `error`, `warning` or `note`.
        message: what was found.
        remedy: how to mend it.
        confidence: how likely it is a fault and no property of good data: 1 is certain, 0.5 an even chance.
        places: where, in order; empty when it holds for the whole dataset.
        feature: `state` or `action`; None where it concerns neither.
        camera: the camera it concerns, or None.
        dimensions: names of the feature's dimensions it concerns; empty for all.
    """

    kind: str
    severity: Severity
    message: str
    remedy: str
    confidence: float
    places: tuple[Place, ...] = ()
    feature: str | None = None
    camera: str | None = None
    dimensions: tuple[str, ...] = ()

    @property
    def episodes(self) -> list[int]:
        """The episodes it lies in, in order; empty when it holds for the whole dataset."""
        return sorted({place.episode for place in self.places})

    @property
    def subject(self) -> str:
        """What it concerns, in words: `state: elbow, wrist`."""
        what = self.feature or (f"camera {self.camera}" if self.camera else "")
        names = ", ".join(self.dimensions[:_SHOWN_NAMES])
        more = f" … ({len(self.dimensions)} in all)" if len(self.dimensions) > _SHOWN_NAMES else ""
        return f"{what}: {names}{more}" if names else what

    @property
    def where(self) -> str:
        """The episodes, in words: `episodes 3, 7-9 …`, with frames where there is one place."""
        if not self.places:
            return "the whole dataset"
        if len(self.places) == 1:
            place = self.places[0]
            return f"episode {place.episode}" + ("" if place.frames is None else f", {_frames(*place.frames)}")
        return f"episodes {ranges(self.episodes)}" if len(self.episodes) > 1 else f"episode {self.episodes[0]}"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `from_dict` reads it back equal."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        places = tuple(
            Place(place["episode"], None if place["frames"] is None else (place["frames"][0], place["frames"][1]))
            for place in data["places"]
        )
        return cls(**{**data, "places": places, "dimensions": tuple(data["dimensions"])})


@dataclass(frozen=True)
class Report:
    """Everything a check found in one dataset.

    Attributes:
        dataset: its name.
        episodes, frames: how much of it there is.
        findings: worst first.
        seen: what was looked at, in words: `12 of 50 episodes of camera top`, …
        facts: what the data look like where they do not say it: `control_type`, …
    """

    dataset: str
    episodes: int
    frames: int
    findings: tuple[Finding, ...]
    seen: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def errors(self) -> list[Finding]:
        return self.of("error")

    @property
    def warnings(self) -> list[Finding]:
        return self.of("warning")

    @property
    def kinds(self) -> set[str]:
        """The kinds of all findings."""
        return {finding.kind for finding in self.findings}

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `from_dict` reads it back equal."""
        return {
            "dataset": self.dataset,
            "episodes": self.episodes,
            "frames": self.frames,
            "findings": [finding.to_dict() for finding in self.findings],
            "seen": list(self.seen),
            "facts": dict(self.facts),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        findings = tuple(Finding.from_dict(finding) for finding in data["findings"])
        return cls(**{**data, "findings": findings, "seen": tuple(data["seen"])})


def _frames(start: int, stop: int) -> str:
    return f"frame {start}" if stop - start == 1 else f"frames {start}-{stop - 1}"


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sorted by severity, then confidence, then how many episodes."""
    return tuple(
        sorted(findings, key=lambda each: (SEVERITIES.index(each.severity), -each.confidence, -len(each.places)))
    )


def ranges(numbers: Sequence[int], shown: int = _SHOWN_EPISODES) -> str:
    """Increasing numbers in words: `3, 7-9, 12 … (41 in all)`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs[:shown])
    return text if len(runs) <= shown else f"{text} … ({len(numbers)} in all)"
