"""What the tests of teleoperators share: a terminal that is not the program's own."""

from __future__ import annotations

import os
import pty
from collections.abc import Callable, Iterator

import pytest

from menura.teleop.terminal import Terminal


@pytest.fixture
def terminal() -> Iterator[tuple[Terminal, Callable[[str], None]]]:
    """A terminal, and what presses keys in it."""
    keyboard, screen = pty.openpty()

    def press(keys: str) -> None:
        os.write(keyboard, keys.encode())

    yield Terminal(screen), press
    os.close(keyboard)
    os.close(screen)
