"""Work on every episode, in order, shared by the cores of a Ray cluster. Ray is imported here alone."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from menura.data.threads import available_cores
from menura.data.workers import CANNOT_TRAVEL
from menura.errors import DataError, MenuraError

Result = TypeVar("Result")

# How many tasks may be under way or wait to be taken, for each core.
_AHEAD = 2
_ANSWERS_WITHIN_S = 5.0


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """The cluster this process is connected to, else that of `$RAY_ADDRESS` or `ray start`, else one of this machine.

    A connection or cluster that is made here ends with the block.

    Raises:
        DataError: Ray is not installed, or the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise DataError(
            "Ray: expected the package 'ray', which is not installed. Install it: pip install 'menura[ray]'."
        ) from error
    if ray.is_initialized():
        yield _of(ray)
        return
    _require_listening(os.environ.get("RAY_ADDRESS", ""))
    with _own_signals():
        _connect(ray)
        try:
            yield _of(ray)
        finally:
            ray.shutdown()


def _require_listening(address: str) -> None:
    """Refuses a `host:port` where nothing listens: Ray would wait for it for minutes, and say nothing."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():  # `auto`, `local`, or none
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise DataError(
            f"Ray: expected a cluster at {address}, where nothing answers ({error}). Start it there (ray start --head "
            "--port), or give `local` to use this machine alone."
        ) from error


def _of(ray: ModuleType) -> RayCluster:
    resources: dict[str, float] = ray.cluster_resources()
    return RayCluster(ray, max(1, int(resources.get("CPU", 1))))


def _connect(ray: ModuleType) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        try:
            ray.init(num_cpus=available_cores(), include_dashboard=False, **quiet)
        except ValueError:  # there is a cluster, and it has the cores that it has
            ray.init(**quiet)
    except (ConnectionError, RuntimeError) as error:
        raise DataError(
            f"Ray: expected a cluster that answers, got {error}. "
            "Start it, or set RAY_ADDRESS=local to use this machine alone."
        ) from error
    if callable(handler) and _on_main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own, in its place, only ends the program


@contextmanager
def _own_signals() -> Iterator[None]:
    """After the block SIGTERM does again what it did before."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if _on_main_thread():
            signal.signal(signal.SIGTERM, handler)


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@dataclass(frozen=True)
class RayCluster:
    """A cluster this process is connected to; `work` is passed once to each of its processes."""

    ray: ModuleType
    count: int

    def in_order(self, work: Callable[[int], Result], count: int) -> Generator[Result, None, None]:
        """As `menura.data.workers.Workers` says."""
        ray = self.ray
        job = _Job(uuid.uuid4().hex, os.getcwd(), list(sys.path), [ray.put(_pickled(ray.cloudpickle, work))])
        call = ray.remote(_call)
        waiting: deque[Any] = deque()
        try:
            for index in range(count):
                waiting.append(call.remote(job, index))
                if len(waiting) >= _AHEAD * self.count:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for task in waiting:
                ray.cancel(task, force=True)

    def _result(self, task: Any) -> Any:
        return fetched(self.ray, task, _lost)


def fetched(ray: Any, task: Any, lost: Callable[[Exception], MenuraError]) -> Any:
    """What a task of Ray answers; what the work itself raised is raised here, and `lost(error)` when Ray lost it."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise lost(error) from error


def _lost(error: Exception) -> DataError:
    return DataError(
        f"Reading episodes on Ray: expected its processes to finish, got {error}. "
        "If one was killed for memory, give the cluster fewer CPUs."
    )


@dataclass(frozen=True)
class _Job:
    """What every task is given: who works already has the work of this key."""

    key: str
    working_directory: str
    path: list[str]  # where this process imports from
    work: list[Any]  # a reference, in a list so that it is not fetched for every task


def _pickled(cloudpickle: Any, work: Callable[[int], Any]) -> bytes:
    """`work`, with what it needs of the project and of the running script, which other processes could not import."""
    own = [module for module in list(sys.modules.values()) if _is_users(module)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(work))
    except CANNOT_TRAVEL as error:
        raise DataError(f"Ray: expected a dataset that can be passed to other processes, got {error}.") from error
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def _is_users(module: ModuleType) -> bool:
    """Whether it was imported from a folder that is not on the path, as `menura.components` does."""
    name, file = getattr(module, "__name__", "__main__"), getattr(module, "__file__", None)
    if file is None or name == "__main__" or name.partition(".")[0] == "menura":
        return False
    path = Path(file)
    depth = name.count(".") + (path.stem == "__init__")
    return len(path.parents) > depth and str(path.parents[depth]) not in sys.path and "site-packages" not in path.parts


_known: tuple[str, Callable[[int], Any]] | None = None


def _call(job: _Job, index: int) -> Any:
    """In a process of the cluster."""
    global _known
    if _known is None or _known[0] != job.key:
        import ray

        if Path(job.working_directory).is_dir():  # paths may be relative
            os.chdir(job.working_directory)
        sys.path += [place for place in job.path if place not in sys.path]
        _known = job.key, ray.cloudpickle.loads(ray.get(job.work[0]))
    return _known[1](index)
