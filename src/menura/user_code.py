"""Errors of the user's own code, said with their line: `policy/x.py:12: ValueError: …`. Torch-free."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from menura.errors import MenuraError

_PACKAGE = Path(__file__).resolve().parent


def last_frame(error: BaseException, is_users: Callable[[Path], bool]) -> traceback.FrameSummary | None:
    """The innermost place of an error that lies in one of the user's files."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(Path(frame.filename))]
    return frames[-1] if frames else None


@contextmanager
def naming_users_line(project: Path, kind: type[MenuraError], where: Callable[[], str] | None = None) -> Iterator[None]:
    """Inside, an error of the project's code becomes one message that begins with its file and line.

    With MENURA_DEBUG it goes on as it is, with its traceback. So do Menura's own errors, those of the system (a full
    disk), and those in which the project has no part.

    Args:
        project: whose files are the user's; installed packages in it are not.
        kind: what the error becomes, raised from it.
        where: says, after the message, at what it happened.
    """
    if os.environ.get("MENURA_DEBUG"):
        yield
        return
    try:
        yield
    except (MenuraError, OSError):
        raise
    except Exception as error:
        root = project.resolve()
        frame = last_frame(error, lambda file: _is_users(file, root))
        if frame is None:
            raise
        place = f"{Path(frame.filename).relative_to(root).as_posix()}:{frame.lineno}"
        after = f", {where()}" if where is not None else ""
        raise kind(f"{place}: {type(error).__name__}: {error}{after}") from error


def _is_users(file: Path, project: Path) -> bool:
    own = "site-packages" not in file.parts and not file.is_relative_to(_PACKAGE)
    return own and file.is_relative_to(project)
