"""The first example is the guide's: its listing, mended, and its YAML."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "my_first_policy"


def test_it_is_the_guides_two_files_and_a_readme() -> None:
    files = {str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert files == {"README.md", "configs/task/your_task.yaml", "policy/my_cool_policy.py"}


def test_the_policy_is_the_mended_listing() -> None:
    mended = ROOT / "tests" / "guide" / "mended" / "policy" / "my_cool_policy.py"
    assert (EXAMPLE / "policy" / "my_cool_policy.py").read_text() == mended.read_text()


def test_the_policy_section_is_the_guides() -> None:
    task = yaml.safe_load((EXAMPLE / "configs" / "task" / "your_task.yaml").read_text())
    assert task["policy"] == {"class": "MyCoolPolicy", "args": {"hidden_size": 2048, "num_layers": 4}}
