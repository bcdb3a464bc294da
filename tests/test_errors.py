"""A wrong name is answered with the nearest right one; where none is near, with those there are."""

from __future__ import annotations

from menura.errors import did_you_mean, listed, near_or_known, nearest


def test_the_nearest_name() -> None:
    assert nearest("Learning_rte", ["lr", "learning_rate"]) == "learning_rate"
    assert nearest("zzz", ["lr"]) is None
    assert did_you_mean("actt", ["act", "pi0"]) == "; did you mean act?"
    assert did_you_mean("zzz", ["act"]) == ""


def test_the_known_names_where_none_is_near() -> None:
    assert near_or_known("actt", ["act", "pi0"]) == "; did you mean act?"
    assert near_or_known("zzz", ["act", "pi0"]) == ". Known: act, pi0"
    assert near_or_known("zzz", (name for name in "ab")) == ". Known: a, b"
    assert near_or_known("zzz", []) == ""


def test_many_names_are_shortened() -> None:
    names = [f"task_{number}" for number in range(50)]
    assert listed(names[:12]).endswith("task_10, task_11")
    assert listed(names) == f"{', '.join(names[:12])}, … (50 in all)"
