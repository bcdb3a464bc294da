"""Every code block of README and docs is executed, page by page, in an empty directory.

A block whose first line is a comment with a path (`# policy/my_cool_policy.py`) is written to that file; other `python`
blocks run one after the other in one interpreter a page; `sh` blocks run line by line, and a line that begins with `!`
must fail. A `text output` block is what the last `sh` line printed, or a part of it: each of its lines must be found
there, in order, where `…` stands for anything. Plain `text` blocks are not run. `make` lines are checked with
`make --dry-run`, and `git`, `cd` and `pip install` lines are left out, for they fetch and install.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("README.md"))]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PATH_LINE = re.compile(r"^# (?:In )?([\w./-]+\.(?:py|yaml))\b.*\n")
LANGUAGES = {"python", "yaml", "sh", "text"}
NOT_GUIDES = {"design.md"}  # its blocks are signatures

# Runs the blocks it is sent in one namespace and answers each with a line of its own.
DONE = "--- the block is done ---"
INTERPRETER = f"""
import json, sys
names = {{"__name__": "page"}}
for request in sys.stdin:
    code, page = json.loads(request)
    exec(compile(code, page, "exec"), names)
    print({DONE!r}, flush=True)
"""


@dataclass(frozen=True)
class Block:
    language: str
    info: str
    code: str
    line: int

    @property
    def path(self) -> str | None:
        match = PATH_LINE.match(self.code)
        return match.group(1) if match and self.language in {"python", "yaml"} else None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(m.group(1), m.group(2).strip(), m.group(3), text[: m.start()].count("\n") + 1)
        for m in FENCE.finditer(text)
    ]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MENURA_CACHE": str(home / ".cache"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }


class Reader:
    """Someone who reads a page and types what it says."""

    def __init__(self, page: Path, directory: Path) -> None:
        self.page = page
        self.directory = directory
        self.printed = ""
        self._python: subprocess.Popen[str] | None = None

    def do(self, block: Block) -> None:
        if block.path is not None:
            file = self.directory / block.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.code)
        elif block.language == "sh":
            self.type(block)
        elif block.language == "python":
            self.execute(block)
        elif block.info == "output":
            self.compare(block)

    def type(self, block: Block) -> None:
        for line in block.code.replace("\\\n", " ").splitlines():
            words = line.split("  # ")[0].strip()
            if not words or words.startswith(("#", "git clone", "cd ", "pip install")):
                continue
            if words.startswith("make"):
                words = f"make --dry-run -C '{ROOT}' {words.removeprefix('make')}"
            done = subprocess.run(
                ["bash", "-uc", words],
                cwd=self.directory,
                env=environment(self.directory),
                capture_output=True,
                text=True,
                check=False,
            )
            self.printed = done.stdout + done.stderr
            where = f"{page_id(self.page)}:{block.line}: {words}"
            assert done.returncode == 0, f"{where}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def execute(self, block: Block) -> None:
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-c", INTERPRETER],
                cwd=self.directory,
                env=environment(self.directory),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        code = "\n" * block.line + block.code  # so that tracebacks name the page's lines
        self._python.stdin.write(json.dumps([code, page_id(self.page)]) + "\n")
        self._python.stdin.flush()
        printed = []
        for line in self._python.stdout:
            if line.strip() == DONE:
                self.printed = "".join(printed)
                return
            printed.append(line)
        pytest.fail(f"{page_id(self.page)}:{block.line}\n{''.join(printed)[-3000:]}")

    def compare(self, block: Block) -> None:
        wanted = [re.escape(" ".join(line.split())).replace("…", ".*?") for line in block.code.splitlines()]
        printed = re.sub(r"[^\S\n]+", " ", self.printed)
        found = re.search(r"[\s\S]*?".join(line for line in wanted if line), printed)
        assert found, f"{page_id(self.page)}:{block.line}: expected\n{block.code}\ngot\n{self.printed}"

    def leave(self) -> None:
        if self._python is not None:
            assert self._python.stdin is not None
            self._python.stdin.close()
            self._python.wait(timeout=60)
            assert self._python.stdout is not None
            self._python.stdout.close()


@contextmanager
def reader(page: Path, directory: Path) -> Iterator[Reader]:
    someone = Reader(page, directory)
    try:
        yield someone
    finally:
        someone.leave()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in NOT_GUIDES], ids=page_id)
def test_page(page: Path, tmp_path: Path) -> None:
    found = blocks(page)
    unknown = [f"{page_id(page)}:{b.line}: {b.language or 'no language'}" for b in found if b.language not in LANGUAGES]
    assert not unknown, unknown
    if page.is_relative_to(ROOT / "examples"):  # an example is a project of its own
        for source in page.parent.rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                target = tmp_path / source.relative_to(page.parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    with reader(page, tmp_path) as someone:
        for block in found:
            someone.do(block)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", page.read_text())):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page_id(page)}: {target}"
