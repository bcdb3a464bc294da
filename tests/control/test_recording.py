"""What is recorded while a robot is controlled: regular frames, what was sent, who drove."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.control.recording import ControlRecorder
from menura.control.sensing import Seen
from menura.control.status import Status
from menura.data import open_dataset
from menura.errors import DataError
from menura.teleop import Teleoperator


def seen(number: int) -> Seen:
    state = np.full(3, number / 100, np.float32)
    picture = np.full((16, 16, 3), number % 256, np.uint8)
    return Seen({"state": state, "images": {"front": picture}, "times": {"state": 0.0, "front": 0.0}}, number)


def features(make_arm: Any, fps: float = 10.0) -> Any:
    return type(make_arm().features)(**{**make_arm().features.__dict__, "fps": fps})


def test_a_frame_is_what_was_seen_and_sent_at_its_time(make_arm: Any, make_recorder: Any, tmp_path: Path) -> None:
    recorder: ControlRecorder = make_recorder(features(make_arm))
    recorder.begin(task="wave", seed=3)
    for tick in range(50):  # 50 Hz, of which every fifth is a frame
        recorder.add(7.0 + tick / 50, seen(tick), np.full(3, tick, np.float32), intervened=12 <= tick < 30)
    recorder.save(success=True, facts={"control": {"ended": "success"}})
    recorder.writer.finalize()
    episode = open_dataset(tmp_path / "recorded").episode(0)
    assert episode.action[:, 0].tolist() == list(range(0, 50, 5))
    np.testing.assert_allclose(episode.state[:, 0], np.arange(0, 50, 5) / 100, atol=1e-6)
    assert (episode.task, episode.seed, episode.success, len(episode)) == ("wave", 3, True, 10)
    assert episode.extra["interventions"] == [[3, 6]]  # ticks 15, 20 and 25
    assert episode.extra["repeated_frames"] == 0
    assert episode.extra["control"] == {"ended": "success"}


def test_time_that_was_lost_is_filled(make_arm: Any, make_recorder: Any, tmp_path: Path) -> None:
    recorder = make_recorder(features(make_arm))
    recorder.begin(task="", seed=None)
    for time_s in (0.0, 0.1, 0.45, 0.5):  # nothing between 0.1 and 0.45
        recorder.add(time_s, seen(0), np.full(3, time_s, np.float32), intervened=time_s == 0.45)
    recorder.save(success=None, facts={})
    recorder.writer.finalize()
    episode = open_dataset(tmp_path / "recorded").episode(0)
    np.testing.assert_allclose(episode.action[:, 0], [0.0, 0.1, 0.45, 0.45, 0.45, 0.5])
    assert episode.extra["repeated_frames"] == 2
    assert episode.extra["interventions"] == [[2, 5]]


def test_nobody_waits_for_an_encoder(make_arm: Any, make_recorder: Any) -> None:
    recorder = make_recorder(features(make_arm))
    recorder.begin(task="", seed=None)
    stuck, append = threading.Event(), recorder._recorder.append

    def slow(**frame: Any) -> None:
        stuck.wait(5.0)
        append(**frame)

    recorder._recorder.append = slow
    began = time.perf_counter()
    for tick in range(400):
        recorder.add(tick / 10, seen(tick), np.zeros(3, np.float32), intervened=False)
    assert time.perf_counter() - began < 1.0
    assert "expected the encoders to keep up, got 300 frames waiting" in recorder.problem
    stuck.set()
    with pytest.raises(DataError, match="expected the encoders to keep up"):
        recorder.save(success=None, facts={})
    assert len(recorder.writer) == 0


def full_after(recorder: ControlRecorder, frames: int) -> None:
    """The disk is full after so many frames of the episode that begins next."""
    begin = recorder.begin

    def begin_and_spoil(**settings: Any) -> None:
        begin(**settings)
        append, count = recorder._recorder.append, []

        def refuse(**frame: Any) -> None:
            count.append(1)
            if len(count) > frames:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            append(**frame)

        recorder._recorder.append = refuse  # type: ignore[method-assign]

    recorder.begin = begin_and_spoil  # type: ignore[method-assign]


def test_a_full_disk_ends_the_episode_and_spares_those_before(
    make_arm: Any, make_policy: Any, make_loop: Any, make_recorder: Any, tmp_path: Path
) -> None:
    arm = make_arm()
    loop = make_loop(arm, make_policy(arm))
    loop.recorder = recorder = make_recorder(loop.features)
    first = loop.run_episode(0.2, seed=1)
    assert first.recorded is not None
    assert first.recorded >= 5
    full_after(recorder, 3)
    second = loop.run_episode(10.0, seed=2)
    assert second.ended == "fault"
    assert "No space left on device" in second.reason
    assert [fault.source for fault in second.faults] == ["recording"]
    assert second.recorded == 0
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])
    recorder.writer.finalize()
    dataset = open_dataset(tmp_path / "recorded")
    assert len(dataset) == 1
    episode = dataset.episode(0)
    assert len(episode) == first.recorded
    assert episode.extra["control"]["ended"] == "time"
    assert episode.images["front"][0].shape == (16, 16, 3)


def test_a_full_disk_at_the_end(
    make_arm: Any, make_policy: Any, make_loop: Any, make_recorder: Any, monkeypatch: Any
) -> None:
    arm = make_arm()
    loop = make_loop(arm, make_policy(arm))
    loop.recorder = recorder = make_recorder(loop.features)

    def full(recorded: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recorder.writer, "_keep", full)
    episode = loop.run_episode(0.1)
    assert (episode.ended, episode.recorded) == ("fault", 0)
    assert "No space left on device" in episode.reason
    monkeypatch.undo()
    assert loop.run_episode(0.1).recorded


def test_what_the_robot_made_of_a_command_is_recorded(
    make_arm: Any, make_policy: Any, make_loop: Any, make_recorder: Any, tmp_path: Path
) -> None:
    arm = make_arm()
    send = arm.send_action
    arm.send_action = lambda action: send(np.minimum(action, 0.25))  # the driver's own limit
    loop = make_loop(arm, make_policy(arm, target=0.5))
    loop.recorder = recorder = make_recorder(loop.features)
    episode = loop.run_episode(0.2)
    recorder.writer.finalize()
    assert episode.timing.clipped["robot"] >= 2
    np.testing.assert_array_equal(open_dataset(tmp_path / "recorded").episode(0).action, 0.25)


def test_takeovers_are_marked(
    make_arm: Any, make_policy: Any, make_loop: Any, make_recorder: Any, tmp_path: Path
) -> None:
    class Steers(Teleoperator):
        action: Any = None

        def act(self, observation: Any) -> Any:
            return self.action

    arm, teleop = make_arm(), Steers()

    def steer(status: Status) -> None:
        teleop.action = np.full(3, 0.9, np.float32) if 0.2 < status.time_s < 0.4 else None

    loop = make_loop(arm, make_policy(arm, target=0.2), teleop=teleop, observers=[steer])
    loop.recorder = recorder = make_recorder(loop.features)
    episode = loop.run_episode(0.6)
    recorder.writer.finalize()
    recorded = open_dataset(tmp_path / "recorded").episode(0)
    ((start, stop),) = recorded.extra["interventions"]
    assert np.isclose(recorded.action[start : stop - 1, 0], 0.9).all()
    assert not np.isclose(recorded.action[:start, 0], 0.9).any()
    assert recorded.extra["control"]["timing"]["interventions"] == episode.timing.interventions


def test_an_episode_that_is_broken_off_leaves_nothing(
    make_arm: Any, make_policy: Any, make_loop: Any, make_recorder: Any
) -> None:
    arm = make_arm()

    def leave(status: Status) -> None:
        if status.time_s > 0.1:
            raise KeyboardInterrupt

    loop = make_loop(arm, make_policy(arm), observers=[leave])
    loop.recorder = recorder = make_recorder(loop.features)
    with pytest.raises(KeyboardInterrupt):
        loop.run_episode(5.0)
    assert len(recorder.writer) == 0
    np.testing.assert_array_equal(arm.commands[-1], arm.commands[-2])  # even then it was told to hold
    loop.observers = ()
    assert loop.run_episode(0.1).recorded


def test_without_a_command_there_is_no_episode(
    make_arm: Any, make_policy: Any, make_loop: Any, make_recorder: Any
) -> None:
    arm = make_arm()
    policy = make_policy(arm)
    policy.problem = ValueError("no")
    loop = make_loop(arm, policy, watchdog={"patience_s": 0.1})
    loop.recorder = recorder = make_recorder(loop.features)
    assert loop.run_episode(5.0).recorded is None
    assert len(recorder.writer) == 0
