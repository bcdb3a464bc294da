"""What the adapters of other people's drivers have in common. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from menura.robots.base import RobotError


@contextmanager
def driver_errors(what: str) -> Iterator[None]:
    """Whatever a driver raises, as a RobotError that says what was being done."""
    try:
        yield
    except RobotError:
        raise
    except Exception as error:  # a driver of other people may raise anything
        raise RobotError(f"{what}: {type(error).__name__}: {error}") from error
