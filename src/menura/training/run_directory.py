"""The directory one training writes: new, interrupted or finished, and of which task. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from menura.config import ResolvedTask
from menura.errors import CheckpointError, ConfigError
from menura.files import read_json, write_text
from menura.training.checkpoints import MANIFEST, TRAINER_STATE, checkpoints, remove_leftovers

Status = Literal["new", "interrupted", "finished"]

BLIND_SUFFIX = "-blind"
RUN_FILE = "run.yaml"
_LOCK = ".lock"

# What cannot change the weights, and so may differ when a run goes on.
_FREE = ("project", "evaluation", "collect", "data", "training.report_to", "training.disable_tqdm", "training.run_name")


def default_directory(task: ResolvedTask) -> Path:
    """`training.output_dir` or `runs/<task>`; for a blind baseline `<that>-blind`."""
    seeing = Path(task.config.training.get("output_dir") or Path("runs") / task.name)
    return seeing.with_name(seeing.name + BLIND_SUFFIX) if task.config.processor.blind else seeing


def is_main_process() -> bool:
    """Whether this is the one process of several (torchrun, accelerate) that writes and prints."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """The directory is there, and no other training writes into it."""
    if not is_main_process():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"{run}: expected to be the only training here, got another one that is running. "
            "Wait for it, or choose another output_dir."
        ) from None
    try:
        remove_leftovers(run)
        yield
    finally:
        lock.release()


def set_aside(run: Path) -> Path | None:
    """Rename an older run to the first free `<run>.1`, `<run>.2`, …; None where there is none."""
    if not (run / RUN_FILE).is_file():
        return None
    number = 1
    while (aside := run.with_name(f"{run.name}.{number}")).exists():
        number += 1
    run.rename(aside)
    return aside


def begin(run: Path, task: ResolvedTask) -> Status:
    """What is to be done in a claimed directory; writes `run.yaml`.

    Raises:
        ConfigError: it holds a run of another configuration; every differing key is named. One that ended before its
            first checkpoint has nothing to lose, and is begun anew.
        CheckpointError: it holds something else.
    """
    status = status_of(run)
    if (run / RUN_FILE).is_file():
        if status != "new":
            _require_same(run, task)
    elif strangers := sorted(path.name for path in run.iterdir() if not path.name.startswith(".")):
        raise CheckpointError(
            f"{run}: expected a new or empty directory or a run, got one with {strangers[0]!r}. "
            "Choose another output_dir."
        )
    if status != "finished":
        write_text(run / RUN_FILE, task.to_yaml())
    return status


def status_of(run: Path, resume: bool = True) -> Status:
    """How far a run is, which begins anew without `resume`."""
    if resume and (run / MANIFEST).is_file():
        return "finished"
    return "interrupted" if checkpoints(run) else "new"


def finished_metrics(run: Path) -> dict[str, float]:
    """The last value of everything a run logged, and `steps`."""
    state = read_json(run / TRAINER_STATE, CheckpointError)
    found: dict[str, float] = {}
    for entry in state["log_history"]:
        found.update({key: value for key, value in entry.items() if key not in ("step", "epoch", "total_flos")})
    return {**found, "steps": state["global_step"]}


def _require_same(run: Path, task: ResolvedTask) -> None:
    there = _flat(yaml.safe_load((run / RUN_FILE).read_text(encoding="utf-8")))
    here = _flat(yaml.safe_load(task.to_yaml()))
    differing = [
        f"  {key}: {there.get(key, 'not given')} there, {here.get(key, 'not given')} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key) and not any(key == free or key.startswith(f"{free}.") for free in _FREE)
    ]
    if differing:
        raise ConfigError(
            f"{run}: expected a run of this configuration, got one that differs in\n"
            + "\n".join(differing)
            + "\nChoose another output_dir, or resume=False (--no_resume), which sets the older run aside."
        )


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """`{"a": {"b": [1]}}` -> `{"a.b.0": 1}`."""
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {key: value}
    return {
        path: leaf for name, item in items for path, leaf in _flat(item, f"{key}.{name}" if key else str(name)).items()
    }
