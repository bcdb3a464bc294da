"""Recorded actions, executed in processes, with the states they lead to. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Float32
from menura.envs import make_env
from menura.envs.base import SimEnv
from menura.errors import EnvironmentFailure, MenuraError
from menura.evaluation.child import Child, Parent, attend
from menura.evaluation.messages import Description
from menura.evaluation.results import finite_or_none
from menura.evaluation.video import VideoWriter, is_video_step
from menura.evaluation.worker import describe, why_undrawn
from menura.processing.spaces import Spaces
from menura.user_code import naming_users_line


@dataclass(frozen=True)
class Start:
    """How an episode is begun.

    Attributes:
        seed: what the environment is reset with.
        state: (n,) float64, the simulator's own state that it is then set to; None leaves it as it is.
        before: (k, A) actions that are executed first and are not part of the episode.
    """

    seed: int
    state: NDArray[np.float64] | None = None
    before: Float32 | None = None


@dataclass(frozen=True)
class Play:
    """An episode to be executed.

    Attributes:
        start: how it is begun.
        actions: (T, A) in physical units.
        states: (T, D) what was recorded; needed where a `Setup` has spaces.
        video: where a film of it is written; None for none.
    """

    start: Start
    actions: Float32
    states: Float32 | None = None
    video: str | None = None


@dataclass(frozen=True)
class Trace:
    """What became of it.

    Attributes:
        states: (n + 1, D) before each of the n actions that were executed, and after the last.
        success: whether `info["success"]` was true at some step.
        return_: the sum of rewards; None where that is not finite.
        measures: the largest of each measure.
    """

    states: Float32
    success: bool
    return_: float | None
    measures: dict[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return len(self.states) - 1


@dataclass(frozen=True)
class Setup:
    """The first message to a process.

    Attributes:
        env: `{"class": …, "args": …}`.
        project: where the user's classes are found.
        spaces: actions are encoded and decoded as a policy's are, `chunk` of them at a time; None leaves them.
        chunk: actions between two observations.
        video_fps: frames per second of a film.
    """

    env: dict[str, Any]
    project: Path | None
    spaces: Spaces | None = None
    chunk: int = 1
    video_fps: float = 10


class Player:
    """Processes that execute plays; a context manager."""

    def __init__(self, setup: Setup, num_workers: int) -> None:
        names = [f"replaying process {number}" for number in range(num_workers)]
        self._children = [Child("menura.evaluation.replaying", name, setup) for name in names]

    def describe(self, film: bool = False) -> Description:
        """What the environment says of itself; with `film` also whether it can be drawn."""
        self._children[0].send(film)
        description: Description = self._children[0].receive()
        return description

    def play(self, plays: Sequence[Play], told: Callable[[Trace], None] | None = None) -> list[Trace]:
        """A trace of each, in order; `told` hears of each when it is there."""
        traces: dict[int, Trace] = {}
        waiting = list(enumerate(plays))[::-1]
        idle, running = list(self._children), dict[Child, int]()
        while len(traces) < len(plays):
            while idle and waiting:
                number, play = waiting.pop()
                child = idle.pop()
                child.send(play)
                running[child] = number
            for child in Child.first_ready(running):
                number = running.pop(child)
                traces[number] = child.receive()
                idle.append(child)
                if told is not None:
                    told(traces[number])
        return [traces[number] for number in range(len(plays))]

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in self._children:
            child.dismiss()
        for child in self._children:
            child.end()


def execute(env: SimEnv, play: Play, setup: Setup) -> Trace:
    """One episode, to the end of its actions or the environment's own."""
    env.begin(play.start.seed)
    if play.start.state is not None:
        env.restore(play.start.state)
    for action in () if play.start.before is None else play.start.before:
        env.advance(action)
    video = None if play.video is None else VideoWriter(play.video, min(setup.video_fps, env.features.fps))
    states, success, total, measures = [env.state()], False, 0.0, dict[str, float]()
    actions, over = play.actions, False
    for step in range(len(actions)):
        if video is not None and is_video_step(step, env.features.fps, setup.video_fps):
            video.add(env.render())
        if setup.spaces is not None and step % setup.chunk == 0:
            assert play.states is not None
            part = slice(step, step + setup.chunk)
            actions = actions.copy()
            actions[part] = _through(setup.spaces, actions[part], play.states[step], states[-1])
        reward, terminated, truncated, info = env.advance(actions[step])
        states.append(env.state())
        success, total = success or bool(info["success"]), total + float(reward)
        for name, value in info.get("measures", {}).items():
            measures[name] = max(float(value), measures.get(name, float(value)))
        over = terminated or truncated
        if over:
            break
    if video is not None:
        video.add(env.render())
        video.close()
    return Trace(np.stack(states), success, finite_or_none(total), measures)


def _through(spaces: Spaces, chunk: Float32, recorded: Float32, seen: Float32) -> Float32:
    """(n, A) actions as a policy would be taught them at the recorded state, and decoded where the simulation is."""
    trained = spaces.encode_actions(chunk[None], recorded[None])
    decoded: Float32 = spaces.decode_actions(trained, seen[None])[0].astype(np.float32)
    return decoded


def serve(parent: Parent) -> None:
    """A replaying process: a Setup comes first, then plays, each answered by its Trace, and questions (bool: whether a
    film is wanted) what the environment is."""
    setup: Setup = parent.receive()
    project = setup.project or Path.cwd()
    with naming_users_line(project, EnvironmentFailure):
        env = make_env(setup.env, setup.project)
    while True:
        message = parent.receive()
        with naming_users_line(project, EnvironmentFailure):
            if isinstance(message, Play):
                try:
                    reply: Any = execute(env, message, setup)
                except MenuraError as error:
                    raise type(error)(f"replay of seed {message.start.seed}: {error}") from error
            else:
                reply = _described(env, setup, film=message)
        parent.answer(reply)


def _described(env: SimEnv, setup: Setup, film: bool) -> Description:
    return replace(describe(env, setup.env), undrawn=why_undrawn(env) if film else None)


def main(descriptor: int) -> None:
    """The process; `descriptor` is its end of the connection."""
    attend(descriptor, serve)
