"""Every code block of README and docs is executed, page by page, in an empty directory.

A block whose first line is a comment with a path (`# policy/my_cool_policy.py`) is written to that file; other `python`
blocks run one after the other in one interpreter a page; `sh` blocks run line by line, and a line that begins with `!`
must fail. A `menura` line that ends with `&` goes on until the page ends, and is then told to end (SIGTERM), which it
must do well; for the ports that are chosen by `--port` and `--zmq_port` free ones are taken, all over the page. A
`text output` block is what the last `sh` line printed, or a part of it: each of its lines must be found there, in
order, where `…` stands for anything. Plain `text` blocks are not run. `make` lines are checked with
`make --dry-run`, and `git`, `cd` and `pip install` lines are left out, for they fetch and install.

Every `menura` line and every page's interpreter is a process of its own, forked from one that has imported torch.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("README.md"))]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PATH_LINE = re.compile(r"^# (?:In )?([\w./-]+\.(?:py|yaml))\b.*\n")
PORT = re.compile(r"--(?:zmq_)?port (\d{4,5})\b")
LANGUAGES = {"python", "yaml", "sh", "text"}
NOT_GUIDES = {"design.md"}  # its blocks are signatures

IMPORTED = ["menura.training.assembly", "menura.meta_policy", "menura.evaluation.evaluate", "menura.api", __name__]
SHELL = re.compile(r"[|&;<>$*~`]")  # what only a shell understands


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


def on_free_ports(page: list[Block]) -> list[Block]:
    """The same, with other numbers for the ports that its lines choose: those may be taken on this machine."""
    chosen = sorted({port for block in page if block.language == "sh" for port in PORT.findall(block.code)})
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in chosen]
        free = {port: str(each.getsockname()[1]) for port, each in zip(chosen, sockets, strict=True)}
    return [replace(block, code=re.sub(r"\b\d{4,5}\b", lambda m: free.get(m[0], m[0]), block.code)) for block in page]


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


def begin(do: Callable[..., None], directory: Path, output: Path, *given: Any) -> ForkServerProcess:
    """A process that does `do(*given)` in that directory and prints into a file."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_settle, args=(do, directory, environment(directory), output, given))
    process.start()
    return process


def _settle(do: Callable[..., None], directory: Path, variables: dict[str, str], output: Path, given: Any) -> None:
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(variables)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    do(*given)


def _menura(words: list[str]) -> None:
    from menura.cli.main import main

    sys.argv = words
    main()


def _interpret(connection: Connection) -> None:
    """Runs the blocks it is sent in one namespace, and answers each with how it failed, or None."""
    sys.path.insert(0, "")
    names: dict[str, Any] = {"__name__": "page"}
    while True:
        try:
            code, page = connection.recv()
        except EOFError:
            return
        failure = None
        try:
            exec(compile(code, page, "exec"), names)
        except BaseException:  # noqa: BLE001 (the page is at fault, whatever it is)
            failure = traceback.format_exc()
        sys.stdout.flush()
        connection.send(failure)


class Reader:
    """Someone who reads a page and types what it says."""

    def __init__(self, page: Path, directory: Path) -> None:
        self.page = page
        self.directory = directory
        self.printed = ""
        self._output = directory.with_name(f"{directory.name}-printed")
        self._python: tuple[ForkServerProcess, Connection] | None = None
        self._servers: list[tuple[str, ForkServerProcess, Path]] = []

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
            if words.endswith(" &"):
                self._begin_server(words.removesuffix(" &"))
                continue
            fails = words.startswith("! ")
            code = self._run(words.removeprefix("! "))
            assert (code != 0) == fails, f"{page_id(self.page)}:{block.line}: {words}\n{self.printed[-6000:]}"

    def _run(self, words: str) -> int:
        """Exit code of a line; what it prints is kept."""
        self._output.unlink(missing_ok=True)
        if words.startswith("menura ") and not SHELL.search(words):
            process = begin(_menura, self.directory, self._output, shlex.split(words))
            process.join()
            code = process.exitcode
            assert code is not None
        else:
            with self._output.open("wb") as output:
                code = subprocess.run(
                    ["bash", "-uc", words],
                    cwd=self.directory,
                    env=environment(self.directory),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=False,
                ).returncode
        self.printed = self._output.read_text()
        return code

    def _begin_server(self, words: str) -> None:
        output = self._output.with_suffix(f".{len(self._servers)}")
        self._servers.append((words, begin(_menura, self.directory, output, shlex.split(words)), output))

    def execute(self, block: Block) -> None:
        if self._python is None:
            ours, theirs = multiprocessing.Pipe()
            process = begin(_interpret, self.directory, self._output.with_suffix(".python"), theirs)
            theirs.close()
            self._python = process, ours
            self._seen = 0
        _, connection = self._python
        connection.send(("\n" * block.line + block.code, page_id(self.page)))  # tracebacks name the page's lines
        failure = connection.recv()
        printed = self._output.with_suffix(".python").read_text()
        self.printed, self._seen = printed[self._seen :], len(printed)
        if failure is not None:
            pytest.fail(f"{page_id(self.page)}:{block.line}\n{self.printed[-3000:]}\n{failure[-3000:]}")

    def compare(self, block: Block) -> None:
        wanted = [re.escape(" ".join(line.split())).replace("…", ".*?") for line in block.code.splitlines()]
        printed = re.sub(r"[^\S\n]+", " ", self.printed)
        found = re.search(r"[\s\S]*?".join(line for line in wanted if line), printed)
        assert found, f"{page_id(self.page)}:{block.line}: expected\n{block.code}\ngot\n{self.printed}"

    def leave(self) -> None:
        if self._python is not None:
            process, connection = self._python
            connection.close()
            process.join(60)
        for _, server, _ in self._servers:
            server.terminate()
            server.join(15)
            server.kill()

    def check_servers(self) -> None:
        for words, server, output in self._servers:
            assert server.exitcode == 0, f"{page_id(self.page)}: {words}: {server.exitcode}\n{output.read_text()}"


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
        for block in on_free_ports(found):
            someone.do(block)
    someone.check_servers()


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", page.read_text())):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page_id(page)}: {target}"
