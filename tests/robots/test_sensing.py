"""What is injected: delays, jitter, drops, frozen cameras; the same for a seed. And commands that wait."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.features import Features, VectorFeature
from menura.robots import RobotError
from menura.robots.sensing import Faults, Sensing
from menura.robots.stand_in import Commands

STREAMS = ("state", "eye")


def sensed(number: int) -> dict[str, int]:
    return {"state": number, "eye": number}


def run(faults: Faults, captures: int = 200, period_s: float = 0.1) -> list[dict[str, float]]:
    """The times of what is newest at each capture."""
    sensing = Sensing(STREAMS, faults)
    sensing.begin(0.0, sensed(0))
    seen = []
    for number in range(1, captures):
        sensing.capture(number * period_s, sensed(number))
        seen.append(sensing.newest(number * period_s)["times"])
    return seen


def test_without_faults_everything_is_there_at_once() -> None:
    assert run(Faults(), 4) == [{"state": t, "eye": t} for t in (0.1, 0.2, pytest.approx(0.3))]


def test_a_delay_is_as_long_as_it_says() -> None:
    assert [round(times["eye"], 3) for times in run(Faults(sensing_delay_s=0.25), 8)] == [0, 0, 0, 0.1, 0.2, 0.3, 0.4]


def test_values_belong_to_their_times() -> None:
    sensing = Sensing(STREAMS, Faults(drop_share=0.5, sensing_jitter_s=0.3, seed=3))
    sensing.begin(0.0, sensed(0))
    for number in range(1, 100):
        sensing.capture(number * 0.1, sensed(number))
        newest = sensing.newest(number * 0.1)
        assert newest["state"] == round(newest["times"]["state"] * 10)
        assert newest["images"]["eye"] == round(newest["times"]["eye"] * 10)


@given(
    st.builds(
        Faults,
        sensing_delay_s=st.floats(0, 0.5),
        sensing_jitter_s=st.floats(0, 0.5),
        drop_share=st.floats(0, 0.9),
        seed=st.integers(0, 100),
    )
)
def test_what_is_newest_never_gets_older_nor_comes_from_the_future(faults: Faults) -> None:
    seen = run(faults, 40)
    assert seen == run(faults, 40)  # the same for a seed
    for number, (before, after) in enumerate(pairwise(seen)):
        now = (number + 2) * 0.1
        assert all(after[name] >= before[name] for name in STREAMS)
        assert all(after[name] <= now - min(faults.sensing_delay_s, now) + 1e-5 for name in STREAMS)


def test_as_many_are_dropped_as_asked_and_each_stream_by_itself() -> None:
    seen = run(Faults(drop_share=0.3, seed=1), 2000)
    kept = {name: len({times[name] for times in seen}) / len(seen) for name in STREAMS}
    assert kept == {"state": pytest.approx(0.7, abs=0.04), "eye": pytest.approx(0.7, abs=0.04)}
    assert any(times["state"] != times["eye"] for times in seen)


def test_a_frozen_camera_gives_nothing_new_and_the_state_goes_on() -> None:
    last = run(Faults(frozen_after_s={"eye": 0.5}), 10)[-1]
    assert last == {"state": pytest.approx(0.9), "eye": pytest.approx(0.4)}


def test_an_episodes_seed_determines_what_is_injected() -> None:
    def times(seed: int) -> list[float]:
        sensing = Sensing(STREAMS, Faults(drop_share=0.5))
        sensing.begin(0.0, sensed(0), seed=seed)
        seen = []
        for number in range(1, 30):
            sensing.capture(float(number), sensed(number))
            seen.append(sensing.newest(float(number))["times"]["eye"])
        return seen

    assert times(1) == times(1) != times(2)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"sensing_delay_s": -1}, "sensing_delay_s: expected a number of at least 0, got -1"),
        ({"drop_share": 1.0}, "drop_share: expected a number from 0 to below 1, got 1.0"),
        (
            {"frozen_after_s": {"eey": 1}},
            "frozen_after_s.eey: expected one of ['state', 'eye'], got 'eey'; did you mean",
        ),
    ],
)
def test_faults_that_cannot_be(faults: dict[str, float], message: str) -> None:
    with pytest.raises(RobotError) as caught:
        Sensing(STREAMS, Faults(**faults))
    assert message in str(caught.value)


def command(number: float, grip: float = 0.0) -> np.ndarray:
    return np.array([number, grip], np.float32)


def commands(control_type: str, delay_s: float = 0.0) -> Commands:
    action = VectorFeature(("x", "grip"), grippers={"grip": (0, 1)})
    return Commands(Features(None, action, control_type=control_type), delay_s)


def test_absolute_commands_hold_until_the_next() -> None:
    waiting = commands("abs")
    assert waiting.take(0.0) is None
    waiting.send(command(1), 0.0)
    waiting.send(command(2), 0.1)
    assert [waiting.take(time)[0] for time in (0.05, 0.06, 0.1, 5.0)] == [1, 1, 2, 2]


def test_a_difference_is_executed_once_and_grippers_stay() -> None:
    waiting = commands("delta")
    assert waiting.take(0.0) is None
    waiting.send(command(1, 0.7), 0.0)
    assert [waiting.take(time).tolist() for time in (0.1, 0.2)] == [[1, np.float32(0.7)], [0, np.float32(0.7)]]


def test_two_differences_in_one_period_are_both_executed_and_of_more_the_oldest_is_lost() -> None:
    waiting = commands("delta")
    for number in (1, 2, 3):
        waiting.send(command(number), 0.0)
    assert [waiting.take(time)[0] for time in (0.1, 0.2, 0.3)] == [2, 3, 0]


def test_a_command_under_way_is_not_executed() -> None:
    waiting = commands("abs", delay_s=0.5)
    waiting.send(command(1), 0.0)
    assert waiting.take(0.49) is None
    assert waiting.take(0.5)[0] == 1
