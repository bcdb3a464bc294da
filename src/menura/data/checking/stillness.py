"""What does not move: constant dimensions, sensors that hang, idle heads and tails, short episodes. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from menura.data.checking.places import Places
from menura.data.checking.remedies import TRIM_IDLE, delete
from menura.data.checking.report import Finding, Place
from menura.data.checking.tables import FEATURES, Bool, Context, Tables, long_runs
from menura.data.episode import Float32
from menura.data.motion import Motion
from menura.data.statistics import Float64

#: A whole state that repeats to the last bit while the action goes on: encoders and physics have noise, so that even a
#: robot held fast shows another last bit within half a second.
FROZEN_S, FROZEN_FRAMES = 0.5, 5
#: One joint alone may stand while its target goes on (against the table, encoder steps), but not as long and as far.
STUCK_S, STUCK_FRAMES = 1.0, 10
#: Share of the action's range that it must cover meanwhile.
ACTION_GOES_ON = 0.2
#: Of a dimension that moves in the other episodes, standing still in this share of them (or in one) is odd; of so
#: many episodes at least.
STILL_IN, STILL_OF = 0.1, 5
#: People need a second to begin and to stop: shorter rests are part of a demonstration.
IDLE_S, IDLE_FRAMES = 2.0, 10
#: Idle frames of all frames from which on they weigh: a policy learns to wait.
IDLE_MATTERS = 0.1
#: Nothing is done in half a second, and little in a tenth of the others' time.
SHORT_S, SHORT_OF_MEDIAN = 0.5, 0.1


class Constant:
    """Dimensions that never change, in the whole dataset or in an odd episode."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._low: dict[str, Float64] = {}
        self._high: dict[str, Float64] = {}
        self._still: dict[str, list[Bool]] = {name: [] for name in FEATURES}
        self._episodes: list[int] = []

    def see(self, tables: Tables) -> None:
        self._episodes.append(tables.index)
        for feature in FEATURES:
            table = tables.table(feature)
            low, high = table.min(axis=0), table.max(axis=0)
            self._low[feature] = np.minimum(self._low.get(feature, low), low)
            self._high[feature] = np.maximum(self._high.get(feature, high), high)
            self._still[feature].append(low == high)

    def findings(self) -> Iterable[Finding]:
        for feature in FEATURES:
            names = self._context.names(feature)
            if not names or not self._episodes:
                continue
            constant = self._low[feature] == self._high[feature]
            # Grippers have a check of their own, and an orientation in a plane has parts that stay.
            expected = self._context.grippers(feature) | self._context.rotated(feature)
            told = constant if constant.all() else constant & ~expected
            if told.any():
                yield _constant(feature, [name for name, still in zip(names, told, strict=True) if still], names)
            yield from self._odd(feature, names, constant)

    def _odd(self, feature: str, names: tuple[str, ...], constant: Bool) -> Iterable[Finding]:
        still = np.stack(self._still[feature])  # (E, D)
        odd = still.any(axis=0) & ~constant & (still.sum(axis=0) <= max(1, STILL_IN * len(still)))
        for number in np.flatnonzero(odd) if len(still) >= STILL_OF else ():
            places = tuple(Place(self._episodes[row]) for row in np.flatnonzero(still[:, number]))
            gripper = bool(self._context.grippers(feature)[number])  # which may have been left alone
            yield Finding(
                "stuck",
                "note" if gripper else "warning",
                f"never changes here, but does in {len(still) - len(places)} of {len(still)} episodes",
                f"Look at them; if a sensor hung: {delete(places)}",
                0.7,
                places,
                feature=feature,
                dimensions=(names[number],),
            )


def _constant(feature: str, constant: list[str], names: tuple[str, ...]) -> Finding:
    everything = len(constant) == len(names)
    return Finding(
        "constant",
        "warning" if everything else "note",
        "nothing in it ever changes" if everything else "never changes",
        "Check what is recorded; nothing can be learnt from it." if everything else "Leave it out with `keys`.",
        0.9 if everything else 0.5,
        feature=feature,
        dimensions=() if everything else tuple(constant),
    )


class Frozen:
    """State that repeats to the last bit while the action goes on: a sensor or a reader of it hung."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._whole: Places[str] = Places()
        self._single: Places[int] = Places()
        grippers = context.grippers("state")  # which stand on what they hold
        self._pairs = [(s, a) for s, a in context.followed if not grippers[s]]

    def see(self, tables: Tables) -> None:
        if not tables.state.shape[1] or len(tables) < 2:
            return
        same = np.diff(tables.state, axis=0) == 0  # (T - 1, D)
        whole = same.all(axis=1)
        scale = self._context.scales["action"]
        moving = np.flatnonzero(~scale.stepped & (scale.range > 0))
        for start, stop in _rests(whole, _frames(FROZEN_S, FROZEN_FRAMES, tables.fps)):
            if _goes_on(tables.action[start:stop, moving], scale.range[moving]):
                self._whole.add("state", tables.index, (start, stop))
        least = _frames(STUCK_S, STUCK_FRAMES, tables.fps)
        for s, a in self._pairs:
            for start, stop in _rests(same[:, s] & ~whole, least):
                if _goes_on(tables.action[start:stop, [a]], scale.range[[a]]):
                    self._single.add(s, tables.index, (start, stop))

    def findings(self) -> Iterable[Finding]:
        names = self._context.names("state")
        if places := self._whole["state"]:
            yield _frozen(places, 0.9, "the whole state repeats to the last bit while the action goes on", ())
        for number, places in self._single.items():
            yield _frozen(places, 0.7, "repeats to the last bit while its action goes on", (names[number],))


def _frozen(places: tuple[Place, ...], confidence: float, message: str, dimensions: tuple[str, ...]) -> Finding:
    remedy = f"Leave the episodes out, or these frames: {delete(places)}"
    return Finding("frozen", "warning", message, remedy, confidence, places, feature="state", dimensions=dimensions)


def _rests(same: Bool, least: int) -> list[tuple[int, int]]:
    """Frames (start, stop) of stretches whose steps are none; a stretch of n steps has n + 1 frames."""
    return [(start, stop + 1) for start, stop in long_runs(same, least - 1)]


def _goes_on(action: Float32, usual: Float64) -> bool:
    return bool(action.size and (np.ptp(action, axis=0) > ACTION_GOES_ON * usual).any())


def _frames(seconds: float, least: int, fps: float) -> int:
    return max(least, round(seconds * fps))


class Idle:
    """Heads and tails in which nothing happens."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._places: list[Place] = []
        self._idle = self._frames = 0

    def see(self, tables: Tables) -> None:
        self._frames += len(tables)
        rest = self._resting(tables)
        if rest.all():
            return  # an episode without any motion is `constant` or `stuck`
        least = _frames(IDLE_S, IDLE_FRAMES, tables.fps)
        head, tail = int(np.argmin(rest)), int(np.argmin(rest[::-1]))
        if head >= least:
            self._places.append(Place(tables.index, (0, head)))
            self._idle += head
        if tail >= least:
            self._places.append(Place(tables.index, (len(tables) - tail, len(tables))))
            self._idle += tail

    def _resting(self, tables: Tables) -> Bool:
        """(T - 1,) whether neither state nor action changes more than a rest does: what `menura data trim` cuts."""
        rest = np.ones(max(len(tables) - 1, 0), bool)
        for feature in FEATURES:
            scale = self._context.scales[feature]
            steps = np.abs(np.diff(tables.table(feature), axis=0))
            rest &= (steps <= Motion.REST * scale.fast).all(axis=1)
        return rest

    def findings(self) -> Iterable[Finding]:
        if not self._places:
            return
        share = self._idle / self._frames
        yield Finding(
            "idle",
            "warning" if share >= IDLE_MATTERS else "note",
            f"state and action rest at the beginning or the end: {share:.1%} of all frames",
            TRIM_IDLE,
            0.8,
            tuple(self._places),
        )


class Short:
    """Episodes too short to show anything."""

    def __init__(self, context: Context) -> None:
        self._lengths: dict[int, tuple[int, float]] = {}

    def see(self, tables: Tables) -> None:
        self._lengths[tables.index] = (len(tables), tables.fps)

    def findings(self) -> Iterable[Finding]:
        median = float(np.median([length for length, _ in self._lengths.values()])) if self._lengths else 0.0
        places = tuple(
            Place(index)
            for index, (length, fps) in self._lengths.items()
            if length < SHORT_S * fps or length < SHORT_OF_MEDIAN * median
        )
        if places:
            yield Finding(
                "short",
                "warning",
                f"shorter than {SHORT_S:g} s or than a tenth of the median episode ({median:g} frames)",
                f"Look at them; if they were stopped by mistake: {delete(places)}",
                0.8,
                places,
            )
