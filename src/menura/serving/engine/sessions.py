"""What belongs to one client of a policy server: its observations so far and its random generator."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from menura.serving.engine.errors import RequestRefused

Observation = Mapping[str, Any]
Form = tuple[tuple[str, tuple[int, ...], str], ...]


class Policy(Protocol):
    """What a session needs of a `MetaPolicy`."""

    observation_offsets: tuple[int, ...]

    def generator(self, seed: int | None) -> torch.Generator | None: ...


class ServingSession:
    """One client's episode after the other.

    The history counts steps: each observation is the one after the last, unless its message says its `timestep`. As in
    an evaluation, what lies before an episode's first observation is that one, and `is_pad` says so. No more is kept
    than the policy looks back.

    Attributes:
        id: told to the client.
        generator: of a policy that samples; a new one each episode.
        lock: a session's messages are read one after the other, in the order they came.
        in_flight: how many of its messages are being answered.
        last_answer_s: when it was last given an answer, in the event loop's time.
    """

    def __init__(self, policy: Policy) -> None:
        self.id = uuid.uuid4().hex
        self.lock = asyncio.Lock()
        self.in_flight = 0
        self.last_answer_s = float("-inf")
        self._policy = policy
        self._offsets = policy.observation_offsets
        self.begin()

    def begin(self, seed: int | None = None) -> None:
        """A new episode: no history, and the randomness that belongs to the seed, or fresh."""
        self.generator = self._policy.generator(seed)
        self._history: dict[int, Observation] = {}
        self._first = 0
        self._newest: int | None = None

    @property
    def unanswered(self) -> bool:
        """Whether it has not been given any answer yet."""
        return self.last_answer_s == float("-inf")

    @property
    def looks_back(self) -> bool:
        """Whether the policy is given anything but the newest observation."""
        return self._offsets != (0,)

    def observe(self, observation: Observation, timestep: int | None) -> None:
        """Keep an observation (without a time axis), whose arrays nobody writes to any more.

        Raises:
            RequestRefused: it is older than the newest, or has another form than those before it.
        """
        if not self.looks_back:
            return
        newest = self._newest
        step = timestep if timestep is not None else 0 if newest is None else newest + 1
        if newest is None:
            self._first = step
        elif step < newest:
            raise RequestRefused(
                f"timestep: expected at least {newest}, that of the newest observation, got {step}. "
                "Send reset: true where an episode begins."
            )
        elif form_of(observation) != form_of(self._history[newest]):
            raise RequestRefused(
                f"observation: expected the form of those before it, {_told(form_of(self._history[newest]))}, "
                f"got {_told(form_of(observation))}. Send reset: true where an episode begins."
            )
        self._history[step] = observation
        self._newest = step
        for old in [old for old in self._history if old < step + self._offsets[0]]:
            del self._history[old]

    def views(self) -> tuple[tuple[Observation, ...], NDArray[np.bool_]]:
        """What the policy looks at now, oldest first, and (O,) which of it repeats the episode's first observation.

        Raises:
            RequestRefused: the client left out a step that it looks at.
        """
        assert self._newest is not None, "an observation is kept before the history is asked for"
        steps = [self._newest + offset for offset in self._offsets]
        for step in steps:
            if step >= self._first and step not in self._history:
                raise RequestRefused(
                    f"history: expected the observation of step {step}, which the policy looks at in step "
                    f"{self._newest}, got those of {sorted(self._history)}. Send each step, with observe: true where "
                    "no actions are wanted, or the whole history with a time axis."
                )
        views = tuple(self._history[max(step, self._first)] for step in steps)
        return views, np.array(steps) < self._first


def form_of(observation: Observation) -> Form:
    """The keys, shapes and dtypes of an observation: those of one form can be stacked."""
    images = observation.get("images", {})
    arrays = [(f"images/{camera}", images[camera]) for camera in sorted(images)]
    if "state" in observation:
        arrays.append(("state", observation["state"]))
    parts = [(key, array.shape, str(array.dtype)) for key, array in arrays]
    return (*parts, *((key, (), "text") for key in ("task",) if key in observation))


def _told(parts: Form) -> str:
    return ", ".join(f"{key} {shape} {dtype}" for key, shape, dtype in parts)
