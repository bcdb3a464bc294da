"""Running episodes: how chunks of actions are executed, one step after the other.

A session holds what belongs to episodes (observation history, queued actions, random generators), so that the policy
itself holds nothing and can be shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from menura.chunks import PreviousChunk
from menura.errors import ContractError
from menura.features import Features, VectorFeature
from menura.processing.rotations import average as average_rotation

Float32 = NDArray[np.float32]
Observation = Mapping[str, Any]


@dataclass(frozen=True)
class OpenLoop:
    """Execute the first `n_action_steps` of a chunk, then predict again. None: as many as the policy's config says."""

    n_action_steps: int | None = None


@dataclass(frozen=True)
class TemporalEnsemble:
    """Predict at every step and average what all chunks say of this step, with weights exp(-coefficient * i).

    i = 0 is the oldest prediction (Zhao et al. 2023, arXiv:2304.13705, algorithm 2; the paper's coefficient is 0.01).
    Rotations that the features name are averaged as rotations: a quaternion and its negative are the same.
    """

    coefficient: float = 0.01


Execution = OpenLoop | TemporalEnsemble


class Predictor(Protocol):
    """The part of `MetaPolicy` that a session needs."""

    chunk_size: int | None
    n_action_steps: int
    observation_offsets: tuple[int, ...]

    @property
    def features(self) -> Features: ...
    def predict(
        self,
        obs: Observation,
        noise: Any = None,
        generator: Sequence[Any] | None = None,
        *,
        observation_is_pad: NDArray[np.bool_] | None = None,
        previous: Sequence[PreviousChunk | None] | None = None,
    ) -> Float32: ...
    def generator(self, seed: int | None) -> Any: ...  # one row's, handed back to `predict`; None: it needs none
    def reset(self) -> None: ...


class Executor(Protocol):
    """What becomes of one row's chunks. `due`: whether the next observation is to be answered with one."""

    @property
    def due(self) -> bool: ...
    def receive(self, chunk: Float32) -> None: ...
    def take(self, offsets: tuple[int, ...]) -> Float32:
        """(n, A), n > 0: the actions until the next step at which an observation is needed, now or by a later one."""
        ...


_NOTHING: Float32 = np.empty((0, 0), np.float32)


class _Chunk:
    """Open loop, one row: the part of the last chunk that is executed, and how far it is."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.actions = _NOTHING
        self.position = 0

    @property
    def due(self) -> bool:
        return self.position == len(self.actions)

    def receive(self, chunk: Float32) -> None:
        self.actions, self.position = chunk[: self.limit], 0

    def take(self, offsets: tuple[int, ...]) -> Float32:
        """The actions until the next step at which an observation is needed, by this prediction or by a later one."""
        start, length = self.position, len(self.actions)
        stop = start + 1
        while stop < length and not any((stop - offset) % length == 0 for offset in offsets):
            stop += 1
        self.position = stop
        return self.actions[start:stop]


class _Ensemble:
    """Temporal ensembling, one row: the last T chunks in a ring."""

    due = True

    def __init__(self, coefficient: float, action: VectorFeature) -> None:
        self.coefficient = coefficient
        self.rotations = [
            (rotation.representation, [action.names.index(name) for name in rotation.names])
            for rotation in action.rotations
        ]
        self.ring: Float32 | None = None  # (T, T, A): slot, step of the chunk
        self.count = 0

    def receive(self, chunk: Float32) -> None:
        length = len(chunk)
        if self.ring is None:
            self.ring = np.zeros((length, *chunk.shape), np.float32)
            self.weights = np.exp(-self.coefficient * np.arange(length))
        self.ring[self.count % length] = chunk
        self.count += 1

    def take(self, offsets: tuple[int, ...]) -> Float32:
        """(1, A): what the chunks predicted for this step, averaged."""
        assert self.ring is not None, "a chunk is received before one is taken"
        length = len(self.ring)
        ages = np.arange(min(self.count, length) - 1, -1, -1)  # the oldest first
        predictions = self.ring[(self.count - 1 - ages) % length, ages]  # (n, A)
        weights = self.weights[: len(ages)]
        average: Float32 = ((weights @ predictions) / weights.sum()).astype(np.float32)
        for representation, places in self.rotations:
            average[places] = average_rotation(predictions[:, places], weights, representation)
        return average[None]


class Row:
    """One running episode."""

    def __init__(self, executor: Executor, generator: Any) -> None:
        self.executor = executor
        self.generator = generator
        self.step = 0
        self.history: dict[int, Observation] = {}
        self.queue = _NOTHING
        self.next = 0


class Session:
    """`batch_size` episodes that run side by side; made by `MetaPolicy.session`. Rows do not influence each other."""

    def __init__(
        self,
        policy: Predictor,
        batch_size: int = 1,
        seeds: Sequence[int] | None = None,
        execution: Execution | None = None,
        exact: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ContractError(f"session: expected batch_size of at least 1, got {batch_size}.")
        self.policy = policy
        self.batch_size = batch_size
        self.execution: Execution = OpenLoop() if execution is None else execution
        self.exact = exact
        self._offsets = policy.observation_offsets
        self._limit = _limit(policy, self.execution)
        self._rows: dict[int, Row] = {}
        self.reset(seeds=seeds)

    def reset(self, rows: Sequence[int] | None = None, seeds: Sequence[int] | None = None) -> None:
        """Begin new episodes in `rows` (all, when None).

        With `seeds`, one per row, a sampling policy draws what belongs to that seed; without, fresh randomness. A
        policy that has a `reset` of its own is reset when all rows are.
        """
        chosen = list(range(self.batch_size)) if rows is None else [self._valid(row) for row in rows]
        if seeds is not None and len(seeds) != len(chosen):
            raise ContractError(f"session seeds: expected {len(chosen)}, one per row, got {len(seeds)}.")
        if rows is None:
            self.policy.reset()
        for index, row in enumerate(chosen):
            self._rows[row] = self._new_row(None if seeds is None else int(seeds[index]))

    def needs_observation(self, rows: Sequence[int] | None = None) -> NDArray[np.bool_]:
        """For each row: whether the next `select_action` looks at its observation (else nothing need be drawn)."""
        return np.array([row.next >= len(row.queue) for row in self._chosen(rows)])

    def plan(self, obs: Observation, rows: Sequence[int] | None = None) -> list[Float32]:
        """The actions (n, A) that each row executes, in physical units, until its next observation is needed.

        `obs` holds the rows in their order, without a time axis. Whoever plans executes the whole plan: nothing stays
        queued for `select_action`.
        """
        chosen = self._chosen(rows)
        self._check_rows(obs, len(chosen))
        for index, row in enumerate(chosen):
            self._remember(row, obs, index)
        due = [index for index, row in enumerate(chosen) if row.executor.due]
        if due:
            asking = obs if len(due) == len(chosen) else _pick(obs, due)
            chunks = self._predict(asking, [chosen[index] for index in due])
            for index, chunk in zip(due, chunks, strict=True):
                chosen[index].executor.receive(chunk)
        plans = []
        for row in chosen:
            actions = row.executor.take(self._offsets)
            row.step += len(actions)
            row.queue, row.next = _NOTHING, 0
            plans.append(actions)
        return plans

    def select_action(self, obs: Observation | None, rows: Sequence[int] | None = None) -> Float32:
        """(B, A) the next action of each row, in physical units.

        Rows that have queued actions do not look at their observation; `obs` may be None when none does.
        """
        chosen = self._chosen(rows)
        needing = [index for index, row in enumerate(chosen) if row.next >= len(row.queue)]
        if needing:
            if obs is None:
                raise ContractError("select_action: expected an observation, got None. See needs_observation.")
            numbers = range(self.batch_size) if rows is None else rows
            whole = len(needing) == len(chosen)
            plans = self.plan(obs if whole else _pick(obs, needing), [numbers[index] for index in needing])
            for index, actions in zip(needing, plans, strict=True):
                chosen[index].queue, chosen[index].next = actions, 0
        result = []
        for row in chosen:
            result.append(row.queue[row.next])
            row.next += 1
        return np.stack(result)

    def _new_row(self, seed: int | None) -> Row:
        return Row(self._executor(seed), self.policy.generator(seed))

    def _executor(self, seed: int | None) -> Executor:
        """Of a row whose episode has that seed."""
        if isinstance(self.execution, TemporalEnsemble):
            return _Ensemble(self.execution.coefficient, self.policy.features.action)
        return _Chunk(self._limit)

    def _previous(self, rows: Sequence[Row]) -> list[PreviousChunk | None]:
        """What the answers to these rows are to agree with: with nothing, as one is asked for when one is executed."""
        return [None] * len(rows)

    def _chosen(self, rows: Sequence[int] | None) -> list[Row]:
        return [self._rows[self._valid(row)] for row in (range(self.batch_size) if rows is None else rows)]

    def _valid(self, row: int) -> int:
        if not 0 <= row < self.batch_size:
            raise ContractError(f"session: expected a row from 0 to {self.batch_size - 1}, got {row}.")
        return row

    def _check_rows(self, obs: Observation, expected: int) -> None:
        parts = {key: value for key, value in obs.items() if key != "images"} | dict(obs.get("images", {}))
        for key, value in parts.items():
            if not isinstance(value, str) and len(value) != expected:
                raise ContractError(f"session: expected {expected} rows of {key!r}, got {len(value)}.")

    def _remember(self, row: Row, obs: Observation, index: int) -> None:
        if len(self._offsets) == 1 and self._offsets[0] == 0:
            return
        # A copy: environments like to write the next observation into the same array.
        row.history[row.step] = _pick(obs, [index])
        oldest = row.step + self._offsets[0] - self._limit
        for step in [step for step in row.history if 0 < step < oldest]:
            del row.history[step]

    def _predict(self, obs: Observation, rows: list[Row]) -> list[Float32]:
        """One chunk (T, A) for each of `rows`, whose newest observations are those of `obs`."""
        is_pad: NDArray[np.bool_] | None = None
        if len(self._offsets) > 1 or self._offsets[0] != 0:
            obs, is_pad = self._with_history(rows)
        obs = {**obs, "timestep": np.array([row.step for row in rows])}
        generators = [row.generator for row in rows if row.generator is not None] or None
        previous = self._previous(rows)
        if not self.exact:
            return list(
                self.policy.predict(obs, generator=generators, observation_is_pad=is_pad, **_agreeing(previous))
            )
        return [
            self.policy.predict(
                _pick(obs, [index]),
                generator=None if generators is None else generators[index : index + 1],
                observation_is_pad=None if is_pad is None else is_pad[index : index + 1],
                **_agreeing(previous[index : index + 1]),
            )[0]
            for index in range(len(rows))
        ]

    def _with_history(self, rows: list[Row]) -> tuple[Observation, NDArray[np.bool_]]:
        """Observations with a time axis (B, O, …), and which of them repeat the first; as `windows` gives them."""
        steps = [[row.step + offset for offset in self._offsets] for row in rows]
        views = [[row.history[max(step, 0)] for step in of_row] for row, of_row in zip(rows, steps, strict=True)]
        is_pad = np.array(steps) < 0  # (B, O)
        return _join(views, drop_time=len(self._offsets) == 1), is_pad


def _agreeing(previous: list[PreviousChunk | None]) -> dict[str, Any]:
    """What `predict` is told of previous chunks, where there is one: a policy that knows of none need not take them."""
    return {"previous": previous} if any(previous) else {}


def _limit(policy: Predictor, execution: Execution) -> int:
    """How many actions of a chunk are executed before the next."""
    if isinstance(execution, TemporalEnsemble):
        return 1
    limit = policy.n_action_steps if execution.n_action_steps is None else execution.n_action_steps
    if not 1 <= limit <= (policy.chunk_size or 1):
        raise ContractError(f"n_action_steps: expected 1 to chunk_size = {policy.chunk_size or 1}, got {limit}.")
    return limit


def _pick(obs: Observation, indices: list[int]) -> dict[str, Any]:
    """The given rows of an observation, copied."""
    picked: dict[str, Any] = {}
    for key, value in obs.items():
        if key == "images":
            picked[key] = {camera: np.asarray(images)[indices] for camera, images in value.items()}
        elif key == "task":
            picked[key] = [value] * len(indices) if isinstance(value, str) else [value[index] for index in indices]
        else:
            picked[key] = np.asarray(value)[indices]
    return picked


def _join(views: list[list[Observation]], *, drop_time: bool) -> dict[str, Any]:
    """views[row][time], each of one row -> one observation (B, O, …), or (B, …) when `drop_time`."""

    def stack(get: Any) -> NDArray[Any]:
        stacked = np.stack([np.concatenate([get(view) for view in of_row]) for of_row in views])
        return stacked[:, 0] if drop_time else stacked

    joined: dict[str, Any] = {}
    for key, value in views[0][0].items():
        if key == "images":
            joined[key] = {camera: stack(lambda view, camera=camera: view["images"][camera]) for camera in value}
        elif key == "task":
            joined[key] = [of_row[-1]["task"][0] for of_row in views]
        else:
            joined[key] = stack(lambda view, key=key: view[key])
    return joined
