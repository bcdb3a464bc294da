"""A table of results from one command: what is in it, that it goes on, and that nothing wrong begins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from menura.errors import ConfigError, DataError
from menura.evaluation.collect import collect
from menura.evaluation.statistics import wilson
from menura.reproduction.plan import Plan, cells
from menura.reproduction.published import Published, judge
from menura.reproduction.report import write_page
from menura.reproduction.run import reproduce
from menura.reproduction.table import Table

PROJECT = Path(__file__).parents[1] / "training" / "project"
EXPERT = """
import numpy as np

class ReachExpert:
    def reset(self, env):
        pass

    def act(self, observation):
        state = observation["state"]
        return np.clip(state[2:] - state[:2], -0.1, 0.1).astype(np.float32)
"""
PLAN: dict[str, Any] = {
    "title": "Reaching",
    "task": "reached",
    "task_key": "env.args.max_episode_steps",
    "tasks": ["25", "30"],
    "policies": {
        "small": {"policy": {"class": "MLPPolicy", "args": {"chunk_size": 2, "n_action_steps": 2, "hidden_size": 8}}},
        "large": {
            "policy": {"class": "MLPPolicy", "args": {"chunk_size": 2, "n_action_steps": 2, "hidden_size": 32}},
            "training": {"max_steps": 60},
        },
    },
    "training_seeds": [0, 1],
    "demonstrations": 3,
    "episodes": 4,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(PROJECT, root, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "expert").mkdir()
    (root / "expert" / "reach_expert.py").write_text(EXPERT)
    environment = root / "env" / "reach_env.py"
    text = environment.read_text().replace(
        "    def reset(",
        "    def __init__(self, max_episode_steps=30):\n"
        "        self.max_episode_steps = int(max_episode_steps)\n\n    def reset(",
        1,
    )
    environment.write_text(text)
    task = {
        "datasets": ["data/reach"],
        "env": {"class": "ReachEnv", "args": {}},
        "expert": {"class": "ReachExpert"},
        "policy": "mlp",
        "training": {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 0},
        "evaluation": {"num_envs": 4},
    }
    (root / "configs" / "task" / "reached.yaml").write_text(yaml.safe_dump(task))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(root)
    return root


def write(project: Path, **changes: Any) -> Path:
    path = project / "plan.yaml"
    path.write_text(yaml.safe_dump({**PLAN, **changes}, sort_keys=False))
    return path


def made(table: Table) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(cell["policy"], cell["seed"], tuple(cell["episodes"])) for cell in table.cells]


def test_a_table_is_made_goes_on_and_grows(project: Path) -> None:
    first = reproduce(write(project, training_seeds=[0]), output_dir="out", num_workers=1, progress=False)
    assert made(first) == [("small", 0, ("25",)), ("small", 0, ("30",)), ("large", 0, ("25",)), ("large", 0, ("30",))]
    figures = json.loads(Path("out/results.json").read_text())["figures"]
    assert list(figures) == ["expert", "random", "small", "large"]
    assert figures["expert"]["average"][0] > figures["random"]["average"][0]
    assert figures["large"]["parameters"] > figures["small"]["parameters"]
    assert figures["small"]["latency_ms"] > 0
    assert [cell["training_steps"] for cell in first.cells] == [4, 4, 60, 60]
    text = Path("out/table.md").read_text()
    assert "| | expert | random | small | large |" in text
    assert "**average**" in text
    page = Path("out/report.html").read_text()
    assert "4 of 4 trainings" in page
    assert page.count('class="mark"') == 4
    assert "has the highest success over 2 tasks" in page
    assert r"\toprule" in Path("out/table.tex").read_text()
    before = {file: file.stat().st_mtime_ns for file in Path("out").rglob("cell.json")}

    grown = reproduce(write(project), output_dir="out", num_workers=2, progress=False)
    assert len(grown.cells) == 8
    assert {file: file.stat().st_mtime_ns for file in before} == before  # nothing was made twice
    rate = grown.rate("large", "25")
    assert rate is not None
    assert rate[0] == sum(grown.counts("large", "25")) / 8

    shutil.rmtree("out/data")  # what the expert did is kept apart from what it recorded
    assert reproduce(write(project), output_dir="out", progress=False).rate("expert", "25") == grown.rate(
        "expert", "25"
    )


def test_data_that_are_there_are_trained_on_and_what_was_published_is_judged(project: Path) -> None:
    for task in PLAN["tasks"]:
        collect("reached", output_dir=f"data/reach-{task}", episodes=3, progress=False)
    published = {
        "small": {
            "25": {"value": 0.5, "episodes": 50, "source": "a paper", "differs": ["their step limit is 400"]},
            "average": {"value": 1.0, "source": "a card"},
        }
    }
    policies = {"small": PLAN["policies"]["small"]}
    plan = write(
        project, training_seeds=[0], policies=policies, dataset="data/reach-{task}", published=published, baselines=[]
    )
    table = reproduce(plan, output_dir="out", num_workers=1, progress=False)
    assert table.names == ["small"]
    assert not Path("out/data").exists()
    assert table.verdicts()[0].word == "not comparable"
    assert "not comparable: their step limit is 400" in Path("out/table.md").read_text()
    page = Path("out/report.html").read_text()
    assert page.index("Against what was published") < page.index("Task by task")
    assert "their step limit is 400" in page


def test_a_measure_takes_the_place_of_success() -> None:
    plan = Plan.model_validate({**PLAN, "metric": "coverage"})
    cell = {"parameters": 1, "training_cpu_s": 1.0, "evaluation_cpu_s": 1.0, "latency_ms": 1.0}
    coverage = {"25": [0.2, 0.4, 0.6, 0.8], "30": [1.0, 1.0, 0.9, 0.9]}
    episodes = {task: {"success": [0.0] * 4, "coverage": values} for task, values in coverage.items()}
    table = Table.of(plan, [{"policy": "small", "seed": seed, "episodes": episodes, **cell} for seed in (0, 1)])
    mean, (low, high) = table.rate("small", "25") or (0.0, (0.0, 0.0))
    assert mean == pytest.approx(0.5)
    assert 0 <= low < mean < high <= 1
    assert (table.average("small") or (0, 0))[0] == pytest.approx(0.725)
    with pytest.raises(DataError, match="expected one of success, coverage"):
        Table.of(plan.model_copy(update={"metric": "covrage"}), table.cells).rate("small", "25")


@pytest.mark.parametrize(
    ("ours", "interval", "value", "episodes", "word"),
    [
        (0.94, (0.90, 0.97), 0.68, None, "above"),
        (0.94, (0.90, 0.97), 0.92, None, "agrees"),
        (0.94, (0.90, 0.97), 0.98, None, "below"),
        (0.94, (0.90, 0.97), 0.98, 50, "agrees"),  # 49 of 50 may well be 94 %
        (0.94, (0.90, 0.97), 0.68, 50, "above"),
        (0.10, (0.05, 0.20), 0.40, 50, "below"),
        (0.50, (0.00, 1.00), 0.60, 50, "cannot tell"),  # of one training
    ],
)
def test_verdicts(ours: float, interval: tuple[float, float], value: float, episodes: int | None, word: str) -> None:
    published = Published(value=value, episodes=episodes, source="a table")
    assert judge("act", "average", ours, interval, published).word == word


@pytest.mark.parametrize(("second", "told"), [(5, False), (48, True)])
def test_the_first_of_a_ranking_is_not_called_better_where_nobody_can_tell(
    second: int, told: bool, tmp_path: Path
) -> None:
    cell = {"parameters": 1, "training_cpu_s": 1.0, "evaluation_cpu_s": 1.0, "latency_ms": 1.0}
    plan = Plan.model_validate({**PLAN, "tasks": ["25"], "training_seeds": [0, 1, 2]})
    cells = [
        {**cell, "policy": name, "seed": seed, "episodes": {"25": {"success": [1.0] * solved + [0.0] * (50 - solved)}}}
        for name, solved in (("small", 49), ("large", second))
        for seed in (0, 1, 2)
    ]
    write_page(tmp_path / "report.html", Table.of(plan, cells))
    page = (tmp_path / "report.html").read_text()
    assert "<b>small</b> has the highest success" in page
    assert ("too near to tell them apart" in page) == told


def test_latex_needs_no_more_than_booktabs() -> None:
    cell = {"parameters": 1000, "training_cpu_s": 1.0, "evaluation_cpu_s": 1.0, "latency_ms": 1.0, "policy": "small"}
    plan = Plan.model_validate({**PLAN, "tasks": ["pick_place"]})
    table = Table.of(plan, [{**cell, "seed": 0, "episodes": {"pick_place": {"success": [1.0, 0.0]}}}])
    assert r"pick\_place & \textbf{50} [9, 91] \\" in table.to_latex()


def test_one_policy_for_all_tasks_and_cells_of_another_plan_are_refused(project: Path) -> None:
    plan = write(project, joint=True, training_seeds=[0], policies={"small": PLAN["policies"]["small"]})
    table = reproduce(plan, output_dir="out", num_workers=1, progress=False)
    assert made(table) == [("small", 0, ("25", "30"))]
    run = Path("out") / "small" / "joint" / "seed0"
    assert (run / "evaluation-25" / "results.json").is_file()

    (run / "cell.json").unlink()  # as if it had been killed after its training, which then costs what it did
    again = reproduce(plan, output_dir="out", num_workers=1, progress=False)
    assert again.cells[0]["training_cpu_s"] == table.cells[0]["training_cpu_s"] > 0

    other = write(project, joint=True, training_seeds=[0], policies={"small": PLAN["policies"]["small"]}, episodes=5)
    with pytest.raises(ConfigError, match="got one of another"):
        reproduce(other, output_dir="out", num_workers=1, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode": 5}, "episode: Extra inputs are not permitted"),
        ({"tasks": ["25", "25"]}, "expected each once"),
        (
            {"policies": {"a": {"policy": {"class": "MLPPolicy", "args": {"hiden_size": 8}}}}},
            "did you mean hidden_size",
        ),
        ({"policies": {"a": {"trainig": {}}}}, "trainig"),
        ({"task": "reechd"}, "did you mean reached"),
        ({"published": {"smal": {"25": {"value": 0.5, "source": "x"}}}}, "'smal' is no policy of the plan"),
        ({"published": {"small": {"26": {"value": 0.5, "source": "x"}}}}, "got '26'"),
        ({"published": {"small": {"25": {"value": 50, "source": "x"}}}}, "less than or equal to 1"),
    ],
)
def test_what_is_wrong_is_said_before_any_time_is_spent(project: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reproduce(write(project, **changes), output_dir="out", progress=False)
    assert not Path("out").exists()


def test_a_policy_that_the_plan_lacks(project: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean small"):
        reproduce(write(project), output_dir="out", policies=["smal"], progress=False)


def test_the_packaged_plans_are_sound() -> None:
    """Every plan of `bench/`: its task and the sections of its policies."""
    from menura.config import load_task

    plans = sorted((Path(__file__).parents[2] / "bench").rglob("*.yaml"))
    assert plans
    for file in plans:
        plan = Plan.read(file)
        for cell in cells(plan.model_copy(update={"training_seeds": (0,)}), Path("out")):
            load_task(plan.task, cell.overrides)


def test_a_baseline_has_no_trainings_to_differ() -> None:
    plan = Plan.model_validate({**PLAN, "tasks": ["25"], "metric": "success"})
    random = {"name": "random", "task": "25", "episodes": {"success": [0.0] * 50, "coverage": [0.1, 0.2] * 25}}
    table = Table.of(plan, [], [random])
    assert table.average("random") == table.rate("random", "25") == (0.0, wilson(0, 50))
    of_measure = Table.of(plan.model_copy(update={"metric": "coverage"}), [], [random]).rate("random", "25")
    assert of_measure is not None
    assert 0.1 < of_measure[1][0] < of_measure[0] < of_measure[1][1] < 0.2
    two = Table.of(plan.model_copy(update={"tasks": ("25", "30")}), [], [random, {**random, "task": "30"}])
    assert (two.average("random") or (0, (0, 1)))[1][1] < 0.07
