"""A child process that answers messages, and tells why when it does not: both ends of it. Torch-free."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO, Any

from menura.errors import EnvironmentFailure, MenuraError
from menura.processes import end, how_it_ended, last_words

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Child:
    """A fresh interpreter that runs `main(descriptor)` of a module; `descriptor` is its end of the connection.

    It is no copy of this process: a simulator's graphics context does not survive a fork, and a user's script is not
    run again. What it prints is kept for its last words. A MenuraError it sends is raised here.
    """

    def __init__(self, module: str, name: str, setup: Any) -> None:
        """`name` says in messages which process it is; `setup` is the first message."""
        self._name = name
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in end())
        self._connection, theirs = Pipe()
        environment = {
            **os.environ,
            **dict.fromkeys(_ONE_THREAD, "1"),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONUNBUFFERED": "1",
        }
        launch = f"import sys; from {module} import main; main(int(sys.argv[1]))"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", launch, str(theirs.fileno())],
                env=environment,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid
        self.send(setup)

    def send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self.receive()  # it has ended: raises what it said last

    def receive(self) -> Any:
        try:
            reply = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise EnvironmentFailure(self._obituary()) from None
        if isinstance(reply, MenuraError):
            raise reply
        return reply

    @staticmethod
    def first_ready(children: Iterable[Child]) -> list[Child]:
        """Those of `children` that have answered or ended; waits for the first."""
        by_connection = {child._connection: child for child in children}
        ready = wait(list(by_connection))
        return [child for connection, child in by_connection.items() if connection in ready]

    def dismiss(self) -> None:
        """Hangs up, at which the process ends in the middle of whatever it does."""
        self._connection.close()

    def end(self) -> None:
        """Waits for the end of a dismissed process, and enforces it."""
        end(self._process)
        self._output.close()

    def _obituary(self) -> str:
        how = how_it_ended(end(self._process))
        return (
            f"{self._name}: expected it to run on, got {how}. What is finished is kept. What it said last:\n"
            f"{last_words(self._output) or '(nothing)'}"
        )


class Parent:
    """The child's own end of the connection. The process ends with its parent, and when the parent hangs up."""

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)
        threading.Thread(target=self._watch, daemon=True).start()

    def receive(self) -> Any:
        """The next message; waits for it."""
        try:
            return self._connection.recv()
        except (EOFError, ConnectionResetError):
            os._exit(0)

    def answer(self, reply: Any) -> None:
        try:
            self._connection.send(reply)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    def _watch(self) -> None:
        """Stops even in the middle of a step. It wakes for a hang-up only: messages cost no switch of threads."""
        poll = select.poll()
        poll.register(self._connection, 0)
        poll.poll()
        os._exit(0)


def attend(descriptor: int, serve: Callable[[Parent], None]) -> None:
    """The child's life: `serve` answers its parent's messages. A MenuraError of it is the last answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    faulthandler.enable()
    parent = Parent(descriptor)
    try:
        serve(parent)
    except MenuraError as error:
        parent.answer(error)
