"""The keys of the terminal while a robot is controlled. Torch-free."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable
from types import TracebackType

_LOOKS_EVERY_S = 0.1


class Keys:
    """Calls `pressed` with each key, one character, while it is entered. Where there is no terminal it does nothing.

    Args:
        pressed: called in a thread of its own.

    Attributes:
        available: whether there is a keyboard to listen to.
    """

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self.available = sys.platform != "win32" and sys.stdin is not None and sys.stdin.isatty()
        self._pressed = pressed
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._terminal = contextlib.ExitStack()

    def __enter__(self) -> Keys:
        if self.available and sys.platform != "win32":
            import termios
            import tty

            file = sys.stdin.fileno()
            before = termios.tcgetattr(file)
            self._terminal.callback(termios.tcsetattr, file, termios.TCSADRAIN, before)
            tty.setcbreak(file)  # keys one by one and unseen; Ctrl-C stays a signal
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._terminal.close()

    def _run(self) -> None:
        file = sys.stdin.fileno()
        while not self._closing.is_set():
            ready, _, _ = select.select([file], [], [], _LOOKS_EVERY_S)
            if not ready:
                continue
            typed = os.read(file, 64)
            if not typed:  # the terminal is gone
                return
            for key in typed.decode(errors="ignore"):
                self._pressed(key)
