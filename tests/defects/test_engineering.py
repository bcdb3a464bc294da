"""Faults of engineering that imitation-learning frameworks have had, and ours must not."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import menura

PACKAGE = Path(menura.__file__).parent
ROOT = Path(__file__).parents[2]
MODULES = sorted(PACKAGE.rglob("*.py"))
TEXTS = [
    *MODULES,
    *PACKAGE.rglob("*.yaml"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "examples").rglob("*.py"),
    *(ROOT / "examples").rglob("*.yaml"),
    ROOT / "README.md",
]


def test_a_library_never_ends_the_program() -> None:
    """Engineering: `quit()` and `exit(0)` in libraries."""
    for path in MODULES:
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"quit", "exit", "sys.exit"}, f"{path}:{node.lineno}: {called}"


def test_nobody_catches_everything_in_silence() -> None:
    """Engineering, Silent wrong results 3: a broad `except` that turns a missing statistic into identity."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ExceptHandler) or node.type is None:
                continue
            caught = {ast.unparse(kind).rpartition(".")[2] for kind in getattr(node.type, "elts", [node.type])}
            if caught & {"Exception", "BaseException", "ImportError"}:
                body = ast.unparse(ast.Module(node.body, []))
                assert body not in ("pass", "continue", "..."), f"{path}:{node.lineno}: swallowed"
            if caught & {"Exception", "BaseException"}:
                assert "raise" in body or "error" in body, f"{path}:{node.lineno}: not told to anybody"


def test_no_device_is_wired_in() -> None:
    """Performance: `.cuda()` in the policies, so that nothing runs on a CPU."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr != "cuda", f"{path}:{node.lineno}"
                wired = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                assert node.func.attr != "to" or not any(value.startswith("cuda") for value in wired), path


def test_one_language_and_nobodys_private_paths() -> None:
    """Engineering: comments in two languages; the authors' home directories in configurations and scripts."""
    private = re.compile(r"(?<![\w.])/(home|mnt|data\d*|Users|inspire|root)/\w")
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", text), path
        assert (found := private.search(text)) is None, f"{path}: {found}"


def test_one_top_level_package_and_its_files() -> None:
    """Engineering: a wheel that installs `policy`, `configs` and `data_utils` beside everybody else's."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert 'packages = ["src/menura"]' in pyproject
    assert [path.name for path in (ROOT / "src").iterdir() if path.is_dir() and path.suffix != ".egg-info"] == [
        "menura"
    ]


def test_what_is_imported_is_declared() -> None:
    """Engineering: packages that the code imports and the package does not ask for."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^[\w-]+ = \[(.*?)\]$", pyproject, re.MULTILINE | re.DOTALL)
    declared = {name.lower().replace("_", "-") for text in lists for name in re.findall(r'"([\w.-]+)[>=]', text)}
    distributions = importlib.metadata.packages_distributions()
    missing = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - {"menura", *sys.stdlib_module_names}:
                if not {found.lower().replace("_", "-") for found in distributions.get(name, [name])} & declared:
                    missing.add(f"{path.relative_to(PACKAGE)}: {name}")
    assert not missing, sorted(missing)


@pytest.mark.parametrize("command", [["config", "aloha_transfer"], ["train", "--help"]])
def test_it_runs_from_any_directory(tmp_path: Path, command: list[str]) -> None:
    """Engineering: paths relative to the repository's root."""
    done = subprocess.run(
        [sys.executable, "-m", "menura.cli.main", *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
