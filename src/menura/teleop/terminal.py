"""Keys as they are pressed in the terminal, without Enter and without waiting; several may listen."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque
from typing import Any

from menura.robots.base import RobotError

#: What terminals send for keys that are no character (ECMA-48; both of a cursor key's modes).
_SEQUENCES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
}
_NAMED = {" ": "space", "\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x1b": "escape"}

#: How keys that are no character are called.
KEY_NAMES = frozenset({*_SEQUENCES.values(), *_NAMED.values()})


class Terminal:
    """The terminal of the program, or a file descriptor that is one.

    While anybody listens it hands over each key at once and does not show it; Ctrl-C still interrupts. When the last
    one stops to listen it is as it was.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._listeners: list[Listener] = []
        self._before: list[Any] = []
        self._lock = threading.Lock()

    def listen(self) -> Listener:
        """Keys from now on. RobotError where there is no terminal."""
        with self._lock:
            if not self._listeners:
                self._open()
            listener = Listener(self)
            self._listeners.append(listener)
            return listener

    def _open(self) -> None:
        if self._descriptor is None:
            self._descriptor = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        try:
            import termios
            import tty
        except ModuleNotFoundError as error:  # Windows
            raise RobotError(
                "keyboard: expected a POSIX terminal, got a system without. Use another device."
            ) from error
        if self._descriptor is None or not os.isatty(self._descriptor):
            raise RobotError(
                "keyboard: expected a terminal, got none. Start the command in one, not in the background."
            )
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)

    def _leave(self, listener: Listener) -> None:
        with self._lock:
            if listener not in self._listeners:
                return
            self._listeners.remove(listener)
            if not self._listeners and self._descriptor is not None:
                import termios

                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def _hand_out(self) -> None:
        with self._lock:
            if not self._listeners or self._descriptor is None:
                return
            text = ""
            while select.select([self._descriptor], [], [], 0)[0]:
                if not (read := os.read(self._descriptor, 1024)):
                    break  # closed
                text += read.decode("utf-8", errors="ignore")
            for key in _keys(text):
                for listener in self._listeners:
                    listener.waiting.append(key)


class Listener:
    """What one listener has not yet taken."""

    def __init__(self, terminal: Terminal) -> None:
        self.waiting: deque[str] = deque(maxlen=1000)
        self._terminal = terminal

    def take(self) -> list[str]:
        """The keys since the last call: characters, or names (`up`, `space`, …). Never waits."""
        self._terminal._hand_out()
        keys = []
        while self.waiting:
            keys.append(self.waiting.popleft())
        return keys

    def close(self) -> None:
        self._terminal._leave(self)


#: Of the program: shared by everybody who listens to keys, so that none takes another's.
TERMINAL = Terminal()


def _keys(text: str) -> list[str]:
    """What was pressed, of what the terminal sent."""
    keys = []
    while text:
        length = 3 if text[:3] in _SEQUENCES else 1
        pressed, text = text[:length], text[length:]
        keys.append(_SEQUENCES.get(pressed) or _NAMED.get(pressed, pressed))
    return keys
