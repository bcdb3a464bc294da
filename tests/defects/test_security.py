"""Faults of security that imitation-learning frameworks have had, and ours must not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import menura
from menura.config import load_task
from menura.errors import ConfigError, MenuraError

SOURCE = Path(menura.__file__).parent


def test_configuration_is_never_executed(tmp_path: Path) -> None:
    """Security: `eval()` of strings from YAML and the command line, and objects built by YAML tags."""
    (tmp_path / "configs" / "task").mkdir(parents=True)
    task = tmp_path / "configs" / "task" / "x.yaml"
    hit = tmp_path / "hit"
    for value in (
        f"!!python/object/apply:os.system ['touch {hit}']",
        f"!!python/object/new:pathlib.Path ['{hit}']",
        f"\"${{__import__('os').system('touch {hit}')}}\"",
        f"\"${{eval:__import__('os').system('touch {hit}')}}\"",
        f"\"__import__('os').system('touch {hit}')\"",
    ):
        task.write_text(f"policy: mlp\nevaluation: {{episodes: {value}}}\n")
        with pytest.raises(ConfigError):
            load_task(task)
        with pytest.raises(ConfigError):
            load_task("x", [f"--evaluation.seed={value}"], project=tmp_path)
    assert not hit.exists()


def test_a_checkpoint_that_came_from_elsewhere_runs_no_code(project: Path, tmp_path: Path) -> None:
    """Security: `trust_remote_code=True` for every load."""
    menura.train("reach", output_dir="out", overrides=["--training.max_steps=1"])
    (project / "policy" / "reach_policy.py").unlink()
    copy = project / "out" / "reach_policy.py"
    copy.write_text(f"open({str(tmp_path / 'hit')!r}, 'w').close()\n" + copy.read_text())
    with pytest.raises(MenuraError):
        menura.MetaPolicy.from_pretrained("out")
    assert not (tmp_path / "hit").exists()


def test_nothing_asks_for_pickles_or_a_shell() -> None:
    """Security: pickled statistics and tables, weights read by `torch.load` without `weights_only`."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only", "shell"):
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is (node.arg == "weights_only"), f"{path}:{node.value.lineno}: {node.arg}"
