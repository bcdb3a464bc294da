"""Every code block of README and docs is executed, page by page, in an empty directory.

A block whose first line is a comment with a path (`# policy/my_cool_policy.py`) is written to that file; other `python`
blocks run in one interpreter a page, `sh` blocks run line by line. `text` blocks show output and are not run. `make`
and `git` lines are checked with `make --dry-run`, for they install and fetch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("[0-9]*.md")), *sorted((ROOT / "examples").rglob("README.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
PATH_LINE = re.compile(r"^# (?:In )?([\w./-]+\.(?:py|yaml))\b.*\n")
LANGUAGES = {"python", "yaml", "sh", "text"}


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int

    @property
    def path(self) -> str | None:
        match = PATH_LINE.match(self.code)
        return match.group(1) if match else None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m.group(1), m.group(2), text[: m.start()].count("\n") + 1) for m in FENCE.finditer(text)]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }


def run(command: list[str], where: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{where}: {' '.join(command)[:300]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def run_shell(block: Block, page: Path, cwd: Path) -> None:
    lines = block.code.replace("\\\n", " ").splitlines()
    for line in filter(None, (line.split("  # ")[0].strip() for line in lines)):
        if line.startswith("#"):
            continue
        where = f"{page_id(page)}:{block.line}"
        if line.startswith("make"):
            run(["make", "--dry-run", "-C", str(ROOT), *line.split()[1:]], where, cwd)
        elif not line.startswith(("git clone", "cd ", "pip install")):
            run(["bash", "-euc", line], where, cwd)


def write(block: Block, path: str, cwd: Path) -> None:
    """A second block of one file is appended when it does not repeat the file's head (the guide's own way)."""
    file = cwd / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.code)


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=page_id)
def test_page(page: Path, tmp_path: Path) -> None:
    found = blocks(page)
    unknown = [f"{page_id(page)}:{b.line}: {b.language or 'no language'}" for b in found if b.language not in LANGUAGES]
    assert not unknown, unknown
    if page.parent != ROOT and page.parent != ROOT / "docs":  # an example is a project of its own
        for source in page.parent.rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                target = tmp_path / source.relative_to(page.parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    script: list[str] = []
    for block in found:
        if block.path is not None and block.language in {"python", "yaml"}:
            write(block, block.path, tmp_path)
        elif block.language == "sh":
            run_shell(block, page, tmp_path)
        elif block.language == "python":
            # The page's Python so far runs again with each block, so that its state is what a reader would have.
            script.append(block.code)
            run([sys.executable, "-c", "\n".join(script)], f"{page_id(page)}:{block.line}", tmp_path)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page_id(page)}: {target}"
