"""`docs/results.md` says what `bench/results/*.json` say, and these are of the plans as they are."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from menura.errors import DataError
from menura.reproduction.plan import Plan
from menura.reproduction.table import Table

ROOT = Path(__file__).resolve().parents[2]
PLAN: dict[str, Any] = {
    "title": "Reaching, from state",
    "task": "reached",
    "tasks": ["near", "far"],
    "policies": {"mlp": {"training": {"max_steps": 4}}, "mlp_blind": {"processor": {"blind": True}}},
    "training_seeds": [0],
    "episodes": 2,
    "published": {"mlp": {"near": {"value": 0.5, "source": "a paper"}}},
}
CELL = {"parameters": 1, "training_cpu_s": 1.0, "evaluation_cpu_s": 1.0, "latency_ms": 1.0, "seed": 0}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_results", ROOT / "tools" / "write_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A plan, and what one of its two policies reached on one of its two tasks."""
    directory = tmp_path / "bench"
    (directory / "results").mkdir(parents=True)
    (directory / "reach.yaml").write_text("# How far\n# it reaches.\n" + yaml.safe_dump(PLAN))
    plan = Plan.model_validate(PLAN)
    cells = [{**CELL, "policy": name, "episodes": {"near": {"success": [1.0, 0.0]}}} for name in plan.policies]
    (directory / "results" / "reach.json").write_text(json.dumps(Table.of(plan, cells).to_dict()))
    return directory


def test_the_pages_say_what_the_results_say(tool: ModuleType) -> None:
    for page, text in tool.pages(tool.tables()).items():
        assert page.read_text(encoding="utf-8") == text, f"{page}: call tools/write_results.py"


def test_every_policy_with_results_has_them_in_its_page(tool: ModuleType) -> None:
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "policies").glob("*.md")]
    shown = {name for text in pages for found in tool.NUMBERS.finditer(text) for name in found[2].split(", ")}
    tables = [table for table in tool.tables().values() if table]
    trained = {name for table in tables for name in table.plan.policies if name in table.names}
    trained -= {name for table in tables for name in trained if tool._is_blind(table.plan, name)}
    assert trained <= shown


def test_what_the_page_of_a_policy_says(tool: ModuleType, bench: Path) -> None:
    lines = tool.numbers(["mlp", "act"], tool.tables(bench, bench / "results")).splitlines()
    assert [line for line in lines if "`" in line] == [
        "| [Reaching, from state](../results.md#reaching-from-state), mean of 2 tasks | `mlp` |  |  | 1 | 1 | 1.0 |"
    ]


def test_results_stay_small() -> None:
    for file in (ROOT / "bench" / "results").rglob("*.*"):
        assert file.suffix == ".json"
        assert file.stat().st_size < 1_000_000, file


def test_what_is_written(tool: ModuleType, bench: Path) -> None:
    text = tool.written(tool.tables(bench, bench / "results"), bench.parent)
    assert (
        "| [`bench/reach.yaml`](../bench/reach.yaml) | [Reaching, from state](#reaching-from-state) | 2 of 4 |" in text
    )
    assert "\n\n## Reaching, from state\n\nHow far it reaches.\n\n" in text
    assert "50 demonstrations a task; 1 training a policy and task; 2 episodes of each, seeds 100000 to 100001." in text
    assert "Blind: `mlp_blind`." in text
    assert "| mlp, near | 50 [" in text
    assert "menura reproduce bench/reach.yaml" in text


def test_a_plan_that_was_not_run_says_so(tool: ModuleType, bench: Path) -> None:
    (bench / "results" / "reach.json").unlink()
    assert "| Reaching, from state | not run: 0 of 4 |" in tool.written(
        tool.tables(bench, bench / "results"), bench.parent
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"episodes": 50}, "episodes"),
        ({"policies": {**PLAN["policies"], "mlp": {"training": {"max_steps": 5}}}}, "policies.mlp"),
    ],
)
def test_results_of_another_plan_are_refused(
    tool: ModuleType, bench: Path, changes: dict[str, Any], named: str
) -> None:
    (bench / "reach.yaml").write_text(yaml.safe_dump({**PLAN, **changes}))
    with pytest.raises(DataError, match=rf"got others: {named}\."):
        tool.tables(bench, bench / "results")


def test_a_policy_that_is_added_later_is_not_run_yet(tool: ModuleType, bench: Path) -> None:
    (bench / "reach.yaml").write_text(
        "# More.\n" + yaml.safe_dump({**PLAN, "policies": {**PLAN["policies"], "act": {}}})
    )
    assert "| 2 of 6 |" in tool.written(tool.tables(bench, bench / "results"), bench.parent)


def test_results_of_no_plan_are_refused(tool: ModuleType, bench: Path) -> None:
    (bench / "results" / "reach.json").rename(bench / "results" / "raech.json")
    with pytest.raises(DataError, match="expected names of plans, got raech"):
        tool.tables(bench, bench / "results")
