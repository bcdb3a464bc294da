"""Comparisons are paired by seed, refuse unlike protocols, and may not be able to tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from menura.errors import DataError
from menura.evaluation.compare import compare
from menura.evaluation.protocol import build_protocol
from menura.evaluation.results import EpisodeResult, Results


def results(outcomes: str, name: str = "a", first: int = 100, **environment: Any) -> Results:
    """`outcomes`: one letter an episode, `x` solved, `.` failed."""
    episodes = tuple(EpisodeResult(i, first + i, o == "x", 0.0, 5, 0.1) for i, o in enumerate(outcomes))
    seeds = range(first, first + len(outcomes))
    protocol = build_protocol({"limit": 40, **environment}, seeds=seeds, stop_at_success=True, execution={})
    return Results(episodes, len(episodes), protocol, {"name": name, "hash": name})


def test_better_worse_and_cannot_tell() -> None:
    good, bad = results("x" * 20), results("." * 12 + "x" * 8, "b")
    better = compare(good, bad)
    assert (better.both, better.only_a, better.only_b, better.neither) == (8, 12, 0, 0)
    assert better.verdict == "better"
    assert better.difference == 0.6
    assert better.interval[0] > 0
    assert str(better).endswith("a is better than b, at 95% confidence.")
    assert compare(bad, good).verdict == "worse"

    same = compare(results("x." * 10), results(".x" * 10, "b"))
    assert same.verdict == "cannot tell"
    assert same.p_value == 1.0
    assert "20 pairs of episodes would show a true difference of" in str(same)

    few = compare(results("xxxxx"), results(".....", "b"))
    assert few.sentence == "cannot tell: 5 pairs of episodes are too few to show any difference."


def test_pairing_counts_who_solved_which_seed() -> None:
    """Both solve half; whether they solve the same half changes the interval and not the rates."""
    same = compare(results("x" * 25 + "." * 25), results("x" * 25 + "." * 25, "b"))
    opposite = compare(results("x" * 25 + "." * 25), results("." * 25 + "x" * 25, "b"))
    assert same.difference == opposite.difference == 0
    assert same.interval[1] < opposite.interval[1]


def test_different_protocols_are_refused_and_named_unless_allowed() -> None:
    a, b = results("xx."), results("x..", "b", limit=60)
    with pytest.raises(DataError, match=r"environment\.limit: 40 / 60"):
        compare(a, b)
    allowed = compare(a, b, allow_different_protocols=True)
    assert allowed.different_fields == ("environment.limit: 40 / 60",)
    assert "environment.limit" in str(allowed)
    with pytest.raises(DataError, match="none in common"):
        compare(a, results("x..", "b", first=500), allow_different_protocols=True)


def test_files_are_compared_like_results(tmp_path: Path) -> None:
    results("xx.").save(tmp_path / "a")
    results("x..").save(tmp_path / "b")
    found = compare(tmp_path / "a", str(tmp_path / "b" / "results.json"))
    assert found.pairs == 3
    assert (found.name_a, found.name_b) == (str(tmp_path / "a"), str(tmp_path / "b" / "results.json"))
    assert compare(tmp_path / "a", tmp_path / "a").name_b == "a (b)"


def test_a_run_stands_for_the_evaluation_it_keeps(tmp_path: Path) -> None:
    results("xx.").save(tmp_path / "a" / "evaluation")
    results(".xx", "b").save(tmp_path / "b")
    assert compare(tmp_path / "a", tmp_path / "b").pairs == 3
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError) as error:
        compare(tmp_path / "a", tmp_path / "c")
    assert str(error.value) == (
        f"results: expected {tmp_path}/c/results.json or {tmp_path}/c/evaluation/results.json, got neither. "
        "Evaluate it first: menura eval."
    )
