"""What no robot can do: jumps from one frame to the next, and angles that wrap around. Torch-free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from menura.data.checking.places import Places
from menura.data.checking.remedies import delete
from menura.data.checking.report import Finding, Place
from menura.data.checking.tables import FEATURES, Bool, Context, Tables, runs
from menura.data.statistics import Float64

#: A jump is so many times the dimension's own fast step (its 95 % quantile): a smooth motion's fastest step is within
#: twice that, contacts and quick grippers within five times.
TIMES_USUAL = 10.0
#: … and this share of its usual range, so that noise around a resting value is none.
OF_RANGE = 0.2
#: … and alone: mass cannot start and stop in one frame, so the steps next to a real fast motion are fast as well.
NEIGHBOURS = 0.25
_AROUND = 2
#: A wrong value goes there and back within so many steps; what stays away came in one.
SPIKE_STEPS = 4
#: … and apart: so many times the next smaller step there is. Velocities have ever larger ones, up to the largest.
APART = 2.5
#: Where so many of the episodes (and three at least) have such a step, it is how the dimension moves.
USUAL_IN, USUAL_OF = 0.3, 3
#: A step of more than this share of a turn is the angle's end, not a motion: that would be 0.8 turns in one frame.
OF_TURN = 0.8
_TURNS = {"rad": 2 * np.pi, "deg": 360.0}


class Jumps:
    """Single steps far outside the distribution of the dataset's own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._episodes = 0
        self._found: dict[tuple[str, int], list[tuple[float, Place]]] = defaultdict(list)
        self._looked = {feature: _continuous(context, feature) for feature in FEATURES}
        self._turns = {feature: _turns(context, feature) for feature in FEATURES}
        self._largest = {feature: np.zeros(context.vector(feature).dim) for feature in FEATURES}  # of the other steps

    def see(self, tables: Tables) -> None:
        self._episodes += 1
        for feature, looked in self._looked.items():
            if not looked.any() or len(tables) < 2:
                continue
            scale = self._context.scales[feature]
            signed = np.diff(tables.table(feature).astype(np.float64), axis=0)
            signed[_wraps(np.abs(signed), self._turns[feature])] = 0
            steps = np.abs(signed)
            large = looked & (steps > TIMES_USUAL * scale.step) & (steps > OF_RANGE * scale.range)
            for dimension in np.flatnonzero(large.any(axis=0)).tolist():
                for start, stop in runs(large[:, dimension]):
                    if not _is_jump(signed[:, dimension], large[:, dimension], start, stop):
                        continue
                    size = float(steps[start:stop, dimension].max())
                    # Steps start … stop - 1 lead to frames start + 1 … stop, the last of which is right after a spike.
                    place = Place(tables.index, (start + 1, max(stop, start + 2)))
                    self._found[feature, dimension].append((size, place))
                    steps[start:stop, dimension] = 0
            self._largest[feature] = np.maximum(self._largest[feature], steps.max(axis=0))

    def findings(self) -> Iterable[Finding]:
        for (feature, dimension), found in self._found.items():
            places = _apart(found, float(self._largest[feature][dimension]))
            episodes = {place.episode for place in places}
            if not places or (len(episodes) >= USUAL_OF and len(episodes) > USUAL_IN * self._episodes):
                continue
            usual = self._context.scales[feature].step[dimension]
            yield Finding(
                "jump",
                "warning",
                f"jumps in one frame, by more than {TIMES_USUAL:g} times its usual fast step ({usual:.3g})",
                f"Look at these frames; a sensor's glitch is mended by hand or left out: {delete(places)}",
                0.8,
                places,
                feature=feature,
                dimensions=(self._context.names(feature)[dimension],),
            )


def _is_jump(signed: Float64, large: Bool, start: int, stop: int) -> bool:
    """Whether the large steps `start … stop - 1` are there at once, or there and back, with small steps around."""
    here = signed[start:stop]
    size = float(np.abs(here).max())
    around = np.abs(signed[max(start - _AROUND, 0) : stop + _AROUND])
    around = around[~large[max(start - _AROUND, 0) : stop + _AROUND]]
    alone = float(around.max(initial=0)) < NEIGHBOURS * size
    and_back = len(here) <= SPIKE_STEPS and abs(float(here.sum())) < NEIGHBOURS * size
    return alone and (len(here) == 1 or and_back)


def _apart(found: list[tuple[float, Place]], largest: float) -> tuple[Place, ...]:
    """Those whose size stands apart from the other steps', in order."""
    kept: list[Place] = []
    for size, place in sorted(found, key=lambda each: each[0]):
        if not kept and size <= APART * largest:
            largest = size
        else:
            kept.append(place)
    return tuple(sorted(kept, key=lambda place: (place.episode, place.frames)))


def _continuous(context: Context, feature: str) -> Bool:
    """(D,) the dimensions that move continuously: positions; of actions only absolute ones."""
    vector = context.vector(feature)
    if not vector.names or not context.scales:
        return np.zeros(vector.dim, bool)
    scale = context.scales[feature]
    looked = scale.smooth & ~scale.stepped & (scale.step > 0)
    units = vector.units or ("",) * vector.dim
    velocities = [
        "/s" in unit or "vel" in name.lower() for unit, name in zip(units, vector.names, strict=True)
    ]  # which do jump, at contacts
    looked &= ~np.array(velocities, bool) & ~context.rotated(feature)
    if feature == "action":
        followed = {action for _, action in context.followed}
        absolute = context.features.control_type == "abs"
        delta = context.features.control_type == "delta"
        looked &= np.array([not delta and (absolute or number in followed) for number in range(vector.dim)], bool)
        looked &= ~context.grippers(feature)  # open and close are commands
    return np.asarray(looked)


class Wraps:
    """Angles that go on at their other end: for a network the two ends are as far apart as can be."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._places: Places[tuple[str, int]] = Places()
        self._turns = {feature: _turns(context, feature) for feature in FEATURES}

    def see(self, tables: Tables) -> None:
        for feature, turns in self._turns.items():
            if np.isnan(turns).all() or len(tables) < 2:
                continue
            steps = np.abs(np.diff(tables.table(feature).astype(np.float64), axis=0))
            for at, dimension in np.argwhere(_wraps(steps, turns)):
                self._places.add((feature, int(dimension)), tables.index, (int(at) + 1, int(at) + 2))

    def findings(self) -> Iterable[Finding]:
        for (feature, dimension), places in self._places.items():
            units = self._context.vector(feature).units
            turn = self._turns[feature][dimension]
            yield Finding(
                "wrap",
                "warning",
                f"goes on at its other end, {'360 degrees' if turn > 100 else '2 pi'} away",
                "Of a joint that turns without end, declare the rotation, representation angle (wrapper "
                "DeclareFeatures); give an orientation as 6d (wrapper ConvertRotations).",
                0.95 if units and units[dimension] in _TURNS else 0.8,
                places,
                feature=feature,
                dimensions=(self._context.names(feature)[dimension],),
            )


def _wraps(steps: Float64, turns: Float64) -> Bool:
    return np.asarray((steps > OF_TURN * turns) & (steps < (2 - OF_TURN) * turns))


def _turns(context: Context, feature: str) -> Float64:
    """(D,) what a whole turn of each dimension is; NaN for what is no angle.

    By the unit; where that is not known, what fills a turn from end to end is taken for an angle: in radians from
    -pi to pi or 0 to 2 pi, in degrees likewise.
    """
    vector = context.vector(feature)
    turns = np.full(vector.dim, np.nan)
    euler = {name for rotation in vector.rotations if "euler" in rotation.representation for name in rotation.names}
    others = {name for rotation in vector.rotations for name in rotation.names} - euler
    for number, name in enumerate(vector.names):
        unit = vector.units[number] if vector.units else ""
        if name in others:
            continue
        if unit in _TURNS:
            turns[number] = _TURNS[unit]
        elif name in euler:
            turns[number] = _TURNS["rad"]
        elif not unit and context.scales:
            scale = context.scales[feature]
            spread, low = scale.max[number] - scale.min[number], scale.min[number]
            for turn in _TURNS.values():
                starts = min(abs(low), abs(low + turn / 2)) < 0.05 * turn
                if starts and OF_TURN * turn < spread <= 1.01 * turn:
                    turns[number] = turn
    return turns
