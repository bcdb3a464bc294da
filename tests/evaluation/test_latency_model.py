"""How long an answer takes, as it is written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.errors import ConfigError
from menura.evaluation.latency_model import LatencyModel


@pytest.mark.parametrize(
    ("text", "kind", "seconds"),
    [
        ("120ms", "constant", (0.12,)),
        ("0.12 s", "constant", (0.12,)),
        ("0ms", "constant", (0.0,)),
        ("normal(120ms, 30ms)", "normal", (0.12, 0.03)),
        (" uniform( 80ms,0.16s ) ", "uniform", (0.08, 0.16)),
        ("lognormal(120ms, 60ms)", "lognormal", (0.12, 0.06)),
    ],
)
def test_what_is_written_is_read(text: str, kind: str, seconds: tuple[float, ...]) -> None:
    model = LatencyModel.of(text)
    assert model.kind == kind
    assert model.seconds == pytest.approx(seconds)
    assert LatencyModel.of(str(model)).seconds == pytest.approx(seconds)
    assert str(LatencyModel.of(str(model))) == str(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("120", "expected ms or s, got 120 without a unit"),
        ("120mm", "expected ms or s, got the unit 'mm'"),
        ("fast", "expected a duration of at least 0, got 'fast'"),
        ("-3ms", "expected a duration of at least 0, got '-3ms'"),
        ("1.2.3s", "expected a number, got '1.2.3'"),
        ("normla(1ms, 2ms)", "got 'normla'; did you mean normal"),
        ("normal(120ms)", r"expected two durations in normal\(…\), got 1"),
        ("uniform(160ms, 80ms)", "expected the lower end first"),
        ("lognormal(0ms, 30ms)", "expected a mean above 0"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LatencyModel.of(text)


@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_the_numbers_are_mean_and_deviation(kind: str) -> None:
    random, model = np.random.default_rng(0), LatencyModel.of(f"{kind}(120ms, 20ms)")
    drawn = [model.draw(random) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(0.12, abs=0.002)
    assert np.std(drawn) == pytest.approx(0.02, abs=0.002)


@given(st.integers(0, 99), st.sampled_from(["10ms", "normal(10ms, 50ms)", "uniform(0ms, 9ms)", "lognormal(1ms, 9ms)"]))
def test_no_answer_is_there_before_it_is_asked_for(seed: int, text: str) -> None:
    random, again = np.random.default_rng(seed), np.random.default_rng(seed)
    model = LatencyModel.of(text)
    drawn = [model.draw(random) for _ in range(10)]
    assert min(drawn) >= 0
    assert drawn == [model.draw(again) for _ in range(10)]
