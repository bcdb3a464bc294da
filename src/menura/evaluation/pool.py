"""The processes that step environments, seen from the one that holds the policy. Torch-free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Pipe
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from menura.errors import EnvironmentFailure, MenuraError
from menura.evaluation.messages import Conduct, Describe, Description, Job, Reply, Setup

_LAUNCH = "import sys; from menura.evaluation.worker import main; main(int(sys.argv[1]))"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_LAST_WORDS = 4000  # characters of a dead process's output that are shown
_GOODBYE_S = 5.0


class WorkerPool:
    """`num_workers` processes that share the slots: slot i lives in process i % num_workers.

    They are fresh interpreters, not copies of this one: a simulator's graphics context does not survive a fork, and a
    user's script is not run again. They end with this process, however it ends.
    """

    def __init__(self, env: Mapping[str, Any], num_workers: int, project: Path | None = None) -> None:
        setup = Setup(dict(env), project)
        self._workers = [_Worker(number, setup) for number in range(num_workers)]

    @property
    def size(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers]

    def describe(self) -> Description:
        """What the environment says of itself."""
        self._workers[0].send(Describe(slot=0))
        description: Description = self._workers[0].receive()
        return description

    def conduct(self, conduct: Conduct) -> None:
        """How the episodes from now on are run. None may be running."""
        for worker in self._workers:
            worker.send(conduct)

    def send(self, jobs: Mapping[int, Job]) -> None:
        """Hands out one batch of jobs, `{slot: job}`. Several batches may be under way."""
        for number, worker in enumerate(self._workers):
            share = {slot: job for slot, job in jobs.items() if slot % len(self._workers) == number}
            if share:
                worker.send(share)

    def receive(self, jobs: Mapping[int, Job]) -> dict[int, Reply]:
        """The replies to the oldest batch not yet answered, which was `jobs`; by slot, in order."""
        owners = {slot % len(self._workers) for slot in jobs}
        replies: dict[int, Reply] = {}
        for number in sorted(owners):
            replies.update(self._workers[number].receive())
        return dict(sorted(replies.items()))

    def close(self) -> None:
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.end()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """One process, the connection to it, and what it prints (kept for its last words)."""

    def __init__(self, number: int, setup: Setup) -> None:
        self._number = number
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in end())
        self._connection, theirs = Pipe()
        environment = {
            **os.environ,
            **dict.fromkeys(_ONE_THREAD, "1"),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONUNBUFFERED": "1",
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(theirs.fileno())],
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
            # It has ended. A last message, if any, tells why better than its output does.
            self.receive()

    def receive(self) -> Any:
        try:
            reply = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise EnvironmentFailure(self._obituary()) from None
        if isinstance(reply, MenuraError):
            raise reply
        return reply

    def dismiss(self) -> None:
        """Asks it to end; a closed connection ends it in the middle of whatever it does."""
        self._connection.close()

    def end(self) -> None:
        try:
            self._process.wait(timeout=_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def _obituary(self) -> str:
        try:
            code = self._process.wait(timeout=_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._output.seek(0)
        last_words = self._output.read().decode(errors="replace")[-_LAST_WORDS:].strip()
        return (
            f"environment process {self._number}: expected it to run on, got {how}. "
            f"Finished episodes are kept; evaluate again with resume. What it said last:\n{last_words or '(nothing)'}"
        )
