"""What people tell the control loop, by keys and by signals. Torch-free."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from menura.clock import Clock
from menura.control.loop import ControlLoop
from menura.control.status import Status
from menura.teleop.terminal import TERMINAL, Listener, Terminal

_LOOKS_EVERY_S = 0.05
#: `name` of a key (or the key itself) -> what it says.
KEYS = {"s": "success", "f": "failure", "q": "quit", "e": "emergency stop", "escape": "emergency stop"}
HELP = "space hold · enter next · s/f success/failure · q quit · e/Esc emergency stop"
HELP_CAPITALS = "space hold · enter next · S/F success/failure · Q quit · E/Esc emergency stop"


class Operator:
    """Somebody at the terminal: an observer of the loop, which looks for keys at every tick and never waits.

    Space makes the robot hold, and go on; enter ends the episode; `s` and `f` say that it succeeded or failed; `q` ends
    the run; `e` and Esc stop at once. Ctrl-C and SIGTERM end the run as `q` does, a second Ctrl-C leaves the program;
    SIGUSR1 stops at once.

    Args:
        loop: who is told.
        capitals: the letters are capitals, as small ones steer the robot.
        terminal: where the keys come from; without one there are none.

    Attributes:
        has_keys: whether there is a keyboard.
        interrupted: whether Ctrl-C was pressed.
        quits: whether no further episode is to begin.
    """

    def __init__(self, loop: ControlLoop, *, capitals: bool = False, terminal: Terminal | None = None) -> None:
        self.interrupted = False
        self.quits = False
        self.help = HELP_CAPITALS if capitals else HELP
        self._loop = loop
        self._keys = {key.upper() if len(key) == 1 and capitals else key: what for key, what in KEYS.items()}
        self._terminal = terminal if terminal is not None else TERMINAL if _on_terminal() else None
        self._listener: Listener | None = None

    @property
    def has_keys(self) -> bool:
        return self._terminal is not None

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Keys and signals are heard inside, and afterwards are as they were."""
        handlers = {"SIGINT": self._interrupt, "SIGTERM": self._terminate, "SIGUSR1": self._emergency}
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name, handler in handlers.items():
                if (number := getattr(signal, name, None)) is not None:  # Windows has no SIGUSR1
                    before[number] = signal.signal(number, handler)
        self._listener = None if self._terminal is None else self._terminal.listen()
        try:
            yield
        finally:
            if self._listener is not None:
                self._listener.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def __call__(self, status: Status) -> None:
        for key in self._taken():
            self._press(key)

    def waits_for_next(self, clock: Clock) -> bool:
        """Waits until enter is pressed; False when the run is to end instead."""
        while not self.quits:
            for key in self._taken():
                if key == "enter":
                    return True
                self.quits = self._keys.get(key) in ("quit", "emergency stop")
            clock.sleep_until(clock.now() + _LOOKS_EVERY_S)
        return False

    def _taken(self) -> list[str]:
        return [] if self._listener is None else self._listener.take()

    def _press(self, key: str) -> None:
        said = self._keys.get(key)
        if key == "space":
            self._loop.paused = not self._loop.paused
        elif key == "enter":
            self._loop.stop("enter was pressed", "next")
        elif said == "success":
            self._loop.stop("said to have succeeded", "success")
        elif said == "failure":
            self._loop.stop("said to have failed", "failure")
        elif said == "quit":
            self._quit("q was pressed")
        elif said == "emergency stop":
            self.quits = True
            self._loop.stop("the key was pressed", "emergency stop")

    def _quit(self, reason: str) -> None:
        self.quits = True
        self._loop.stop(reason, "quit")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self._quit("interrupted")

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._quit("told to end (SIGTERM)")

    def _emergency(self, number: int, frame: FrameType | None) -> None:
        self.quits = True
        self._loop.stop("SIGUSR1", "emergency stop")


def _on_terminal() -> bool:
    return sys.platform != "win32" and sys.stdin is not None and sys.stdin.isatty()
