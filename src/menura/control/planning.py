"""The policy, asked in a thread of its own: one inference at a time. Torch-free."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from menura.chunks import ActionChunk, PreviousChunk
from menura.clock import Clock
from menura.control.sensing import Seen, Sensing
from menura.control.watchdog import attempt
from menura.errors import ContractError
from menura.features import Features
from menura.priority import ANSWERING, go_first
from menura.served_policy import ServedPolicy

Float32 = NDArray[np.float32]

_GOODBYE_S = 2.0


class ChunkPolicy(Protocol):
    """The part of a `MetaPolicy`, or of a `ServedPolicy`, that drives a robot."""

    chunk_size: int | None
    n_action_steps: int
    observation_offsets: tuple[int, ...]

    @property
    def features(self) -> Features: ...
    @property
    def required_cameras(self) -> tuple[str, ...]: ...
    def predict(self, obs: Mapping[str, Any], *, generator: Any = ..., observation_is_pad: Any = ...) -> Float32: ...
    def generator(self, seed: int | None) -> Any: ...
    def reset(self) -> None: ...


class NoPolicy:
    """Where a teleoperator drives alone: of the robot's features, looks at no camera, and is never asked."""

    chunk_size: int | None = None
    n_action_steps = 1
    observation_offsets: tuple[int, ...] = (0,)
    required_cameras: tuple[str, ...] = ()

    def __init__(self, features: Features) -> None:
        self.features = features

    def predict(self, obs: Mapping[str, Any], *, generator: Any = None, observation_is_pad: Any = None) -> Float32:
        raise ContractError("control: expected a policy to be asked, got none. Give -m RUN.")

    def generator(self, seed: int | None) -> None:
        return None

    def reset(self) -> None:
        return None


@dataclass(frozen=True)
class Request:
    """What the policy is asked.

    Attributes:
        observation: raw, of one row, with a time axis where the policy looks at several.
        is_pad: (1, O) which of these repeat the episode's first; None where it looks at one.
        captured_s: when the newest was captured: the time of the first action.
        previous: what the answer is to agree with.
    """

    observation: Mapping[str, Any]
    is_pad: NDArray[np.bool_] | None
    captured_s: float
    previous: PreviousChunk | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a request: a chunk, or the problem in words; and how long that took."""

    chunk: ActionChunk | None
    problem: str | None
    took_s: float


class Planner:
    """Asks a policy without anyone waiting for it.

    Args:
        policy: asked by one thread alone.
        period_s: from one action of a chunk to the next.
        clock: by which answers are timed.
        delay_s: how much longer each inference is made to take.

    Attributes:
        asked_s: when the inference under way began; None: none is.
    """

    def __init__(self, policy: ChunkPolicy, period_s: float, clock: Clock, delay_s: float = 0.0) -> None:
        self.asked_s: float | None = None
        self._policy = policy
        self._period_s = period_s
        self._clock = clock
        self._delay_s = delay_s
        self._generator: Any = None
        self._number = 0  # of the next request
        self._wanted = 0  # the first whose answer is still of use
        self._requests: queue.SimpleQueue[tuple[int, Request] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, Answer]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def reconnects(self) -> int:
        """How often the connection to the policy was made anew; 0 of a policy that is here."""
        return getattr(self._policy, "reconnects", 0)

    def begin(self, seed: int | None) -> None:
        """A new episode; `seed` is that of a policy that samples."""
        self.forget()
        self._policy.reset()
        self._generator = self._policy.generator(seed)

    def forget(self) -> None:
        """Whatever was asked until now: its answer is of no use any more."""
        self._wanted = self._number

    def ask(self, request: Request) -> None:
        """Begin an inference; none may be under way."""
        self.asked_s = self._clock.now()
        self._requests.put((self._number, request))
        self._number += 1

    def take(self) -> Answer | None:
        """The answer that came since this was last asked, if one did."""
        try:
            number, answer = self._answers.get_nowait()
        except queue.Empty:
            return None
        self.asked_s = None
        return answer if number >= self._wanted else None

    def close(self) -> None:
        """End the thread; one whose policy never answers is left behind and ends with the program."""
        self._requests.put(None)
        self._thread.join(_GOODBYE_S)

    def _run(self) -> None:
        if isinstance(self._policy, ServedPolicy):  # another computes: what is done here is short, and waited for
            go_first(ANSWERING)
        while (asked := self._requests.get()) is not None:
            number, request = asked
            began_s = self._clock.now()
            actions, problem = attempt(partial(self._predict, request))
            self._clock.sleep_until(self._clock.now() + self._delay_s)
            chunk = None if actions is None else ActionChunk(actions, request.captured_s, self._period_s, number)
            self._answers.put((number, Answer(chunk, problem, self._clock.now() - began_s)))

    def _predict(self, request: Request) -> Float32:
        options: dict[str, Any] = {} if request.previous is None else {"previous": [request.previous]}
        if self._generator is not None:
            options["generator"] = [self._generator]
        answered = self._policy.predict(request.observation, observation_is_pad=request.is_pad, **options)
        actions = np.asarray(answered, np.float32)
        width = self._policy.features.action_dim
        if actions.ndim != 3 or len(actions) != 1 or actions.shape[2] != width:
            raise ContractError(f"policy: expected actions of shape (1, T, {width}), got {actions.shape}.")
        if not np.isfinite(actions).all():
            raise ContractError("policy: expected finite actions, got NaN or infinity. Look at its observation.")
        chunk: Float32 = actions[0]
        return chunk


def request_of(
    sensing: Sensing, newest: Seen, policy: ChunkPolicy, *, task: str, period_s: float, previous: PreviousChunk | None
) -> Request:
    """What the policy is asked about `newest`: its history is spaced by the policy's own period, in time.

    What lies before the episode's first observation is that one, and padding, as in training.
    """
    offsets = policy.observation_offsets
    first = sensing.first or newest
    times_s = [newest.captured_s + offset * period_s for offset in offsets]
    views = [newest] if offsets == (0,) else sensing.at(times_s)
    is_pad = np.array([[time_s < first.captured_s - period_s / 2 for time_s in times_s]])  # (1, O)
    return Request(
        observation={
            **_joined(views, policy.required_cameras),
            "task": [task],
            "timestep": np.array([round((newest.captured_s - first.captured_s) / period_s)]),
        },
        is_pad=None if offsets == (0,) else is_pad,
        captured_s=newest.captured_s,
        previous=previous,
    )


def _joined(views: Sequence[Seen], cameras: Sequence[str]) -> dict[str, Any]:
    """(1, O, …) of several observations, (1, …) of one."""

    def stack(values: list[NDArray[Any]]) -> NDArray[Any]:
        return values[0][None] if len(values) == 1 else np.stack(values)[None]

    observations = [seen.observation for seen in views]
    images = {camera: stack([one["images"][camera] for one in observations]) for camera in cameras}
    return {"state": stack([one["state"] for one in observations]), "images": images}
