"""The checkpoints of a run: complete or absent, whatever happens while one is written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from menura.errors import CheckpointError
from menura.files import TEMPORARY, fsync_directory, fsync_tree, replace_directory

TRAINER_STATE = "trainer_state.json"
MANIFEST = "menura.json"

_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoint_step(directory: Path) -> int | None:
    """The optimizer step of `checkpoint-<step>`; None when that is not what the directory is called."""
    match = _NAME.fullmatch(directory.name)
    return int(match[1]) if match else None


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [path for path in run.glob("checkpoint-*") if checkpoint_step(path) is not None]
    complete = [path for path in found if (path / TRAINER_STATE).is_file()]
    return sorted(complete, key=lambda path: checkpoint_step(path) or 0)


def remove_leftovers(run: Path) -> None:
    """Remove what a killed training left half written. Only while no other process trains in this directory."""
    for path in run.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def keep_newest(run: Path, limit: int | None, protected: Path | None) -> None:
    """Remove the oldest checkpoints beyond `limit` (None keeps all); never the newest, never `protected`."""
    if not limit or limit < 0:
        return
    found = checkpoints(run)
    keep = set(found[-1:]) | ({protected} if protected is not None else set())
    excess = max(0, len(found) - max(limit, len(keep)))
    for path in [path for path in found if path not in keep][:excess]:
        # Renamed first: a kill in the middle must not leave a checkpoint with files missing.
        doomed = path.with_name(f"{TEMPORARY}{path.name}")
        path.rename(doomed)
        shutil.rmtree(doomed)


@contextmanager
def written_whole(
    final: Path,
    *,
    first: bool = True,
    wait: Callable[[], None] = lambda: None,
    finish: Callable[[Path, Path], None] = replace_directory,
) -> Iterator[Path]:
    """A temporary directory that becomes `final`, flushed to the disk, when the block ends without an error.

    Args:
        final: where the directory will be; its parent must exist.
        first: whether this process makes and renames the directory, as one of several must.
        wait: waits for all processes that write into it.
        finish: puts the temporary directory, flushed, in the place of the final one.

    Raises:
        CheckpointError: it cannot be written, as on a full disk; what was there before is as it was.
    """
    temporary = final.with_name(f"{TEMPORARY}{final.name}")
    try:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        wait()
        yield temporary
        wait()
        if first:
            finish(temporary, final)
        wait()
    except (OSError, SafetensorError) as problem:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _not_written(final, problem) from problem
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def move_files(source: Path, run: Path) -> None:
    """Move the files of a finished policy into a run's directory; its manifest last, so that it says "complete"."""
    fsync_tree(source)
    (run / MANIFEST).unlink(missing_ok=True)
    names = sorted((path.name for path in source.iterdir()), key=lambda name: (name == MANIFEST, name))
    for name in names:
        target = run / name
        if target.is_dir():
            shutil.rmtree(target)
        (source / name).replace(target)
        if name != MANIFEST:
            fsync_directory(run)
    fsync_directory(run)
    source.rmdir()


def _not_written(final: Path, problem: Exception) -> CheckpointError:
    free_mb = shutil.disk_usage(final.parent).free / 1e6
    last = checkpoints(final.parent)
    kept = f"{last[-1]} is complete" if last else "there is no earlier one"
    return CheckpointError(
        f"{final}: expected to write a checkpoint, got: {problem} ({free_mb:.0f} MB free). "
        f"Make room and run the same command again: {kept}."
    )
