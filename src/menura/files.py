"""Writing so that a kill at any moment leaves the old or the new, never a piece of either. Torch-free."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from menura.errors import MenuraError

TEMPORARY = ".tmp-"
REPLACED = ".old-"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, for a library that opens its file itself.

    What is written there takes the place of `path`, flushed to the disk, if the block ends without an error. The
    temporary name begins with a dot, so that no reader takes it for data, and ends as `path` does.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: str | Path) -> Path:
    """A new empty file in the directory of `path`, which is made: what will be `path`, once it is written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=f"-{path.name}", dir=path.parent)
    os.close(handle)
    return Path(name)


def put_in_place(temporary: Path, path: str | Path) -> None:
    """Makes the finished file `temporary` durable, under the name `path` beside it."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o666 & ~_umask())
    temporary.replace(path)
    fsync_directory(temporary.parent)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a whole file: a temporary name beside it, flushed to the disk, renamed."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """`write_text` of indented JSON. NaN and infinity are refused: they are no JSON."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: str | Path) -> str:
    """The hex digest of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def files_below(directory: str | Path) -> Iterator[Path]:
    """Every file under `directory`, in a fixed order."""
    return (path for path in sorted(Path(directory).rglob("*")) if path.is_file())


def fsync_directory(directory: str | Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(directory: str | Path) -> None:
    """Make every file and every name under `directory` durable, and readable by whom the umask allows.

    Some libraries, safetensors among them, write files that only their owner can read.
    """
    root, allowed = Path(directory), 0o666 & ~_umask()
    for path in files_below(root):
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode | allowed != mode:
                os.fchmod(file.fileno(), mode | allowed)
            os.fsync(file.fileno())
    for path in (*(path for path in root.rglob("*") if path.is_dir()), root):
        fsync_directory(path)


def replace_directory(temporary: str | Path, final: str | Path) -> None:
    """Put the finished directory `temporary` (same filesystem) in the place of `final`, which may exist.

    A directory cannot be renamed over another, so `final` is first renamed to `.old-<name>` beside it. Killed between
    the two renames, the old directory is whole under that name: `recover_directory` brings it back.
    """
    temporary, final = Path(temporary), Path(final)
    fsync_tree(temporary)
    recover_directory(final)
    old = _replaced_name(final)
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    fsync_directory(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_directory(final: str | Path) -> None:
    """Finish what a killed `replace_directory` left: bring the old directory back, or remove it where the new is."""
    final = Path(final)
    old = _replaced_name(final)
    if not old.exists():
        return
    if final.exists():
        shutil.rmtree(old)
    else:
        old.rename(final)


def left_behind(final: str | Path) -> Path | None:
    """The old directory where a killed `replace_directory` left it: `final` is absent then."""
    final = Path(final)
    old = _replaced_name(final)
    return old if old.exists() and not final.exists() else None


@contextmanager
def new_directory(final: str | Path) -> Iterator[Path]:
    """A temporary directory beside `final` that takes its place when the block ends without an error.

    Raises:
        OSError: it cannot be written, as on a full disk, by safetensors too, which has an error of its own for that.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{final.name}-", dir=final.parent))
    temporary.chmod(0o777 & ~_umask())
    try:
        yield temporary
        replace_directory(temporary, final)
    except SafetensorError as problem:
        raise OSError(0, str(problem), str(final)) from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_json(path: str | Path, error: type[MenuraError] = MenuraError) -> Any:
    """The value of a JSON file; `error` names the file and the line when it is missing or damaged."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: expected a JSON file, got nothing.") from None
    except UnicodeDecodeError as problem:
        raise error(f"{path}: expected UTF-8 text, got a wrong byte at position {problem.start}.") from None
    except json.JSONDecodeError as problem:
        raise error(f"{path}:{problem.lineno}: expected JSON, got {problem.msg.lower()}.") from None


def _replaced_name(final: Path) -> Path:
    return final.with_name(f"{REPLACED}{final.name}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
