"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckResult:
    """One line of a check.

    Attributes:
        name: what was checked, in a few words.
        ok: whether it holds.
        message: where it does not: the place, what was expected and got, and what to write instead. May hold a note
            where it does.
    """

    name: str
    ok: bool
    message: str = ""
