"""The source that travels with a policy: its file and those it imports relatively, laid flat in one folder.

`transformers` loads code of a checkpoint from one folder whose files import each other as `from .name import …`. What
policies share lies beside their folders (`from ..common.losses import …`), so such imports are made siblings.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from menura.errors import ContractError

_FROM = re.compile(r"from\s+\.+[\w.]*?(\w+)\s+import")


def travelling_code(file: Path) -> dict[str, str]:
    """File name -> text, of `file` and of every file it imports relatively, and those in turn.

    Raises:
        ContractError: an import that cannot be laid flat: two files of one name, or `from . import name`.
    """
    found: dict[str, Path] = {}
    waiting = [file]
    texts: dict[str, str] = {}
    while waiting:
        path = waiting.pop()
        if (other := found.setdefault(path.name, path)) != path:
            raise ContractError(
                f"{path}: expected a name of its own, since the code of a checkpoint lies in one folder, got that of "
                f"{other}. Rename one of them."
            )
        if path.name not in texts:
            texts[path.name], neighbours = _laid_flat(path)
            waiting += neighbours
    return texts


def laid_flat(file: Path) -> str:
    """The text of one file as it travels."""
    return _laid_flat(file)[0]


def _laid_flat(path: Path) -> tuple[str, list[Path]]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    neighbours = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        if node.module is None:
            raise ContractError(
                f"{path}:{node.lineno}: expected `from .name import …`, which code that travels with weights can hold, "
                f"got `{ast.unparse(node)}`."
            )
        folder = path.parents[node.level - 1]
        neighbour = folder.joinpath(*node.module.split(".")).with_suffix(".py")
        if not neighbour.is_file():
            raise ContractError(f"{path}:{node.lineno}: expected the file {neighbour}, got none. Correct the import.")
        neighbours.append(neighbour)
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = _FROM.sub(r"from .\1 import", line, count=1)
    return "".join(lines), neighbours
