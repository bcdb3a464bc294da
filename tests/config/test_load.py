"""From YAML, sections and overrides to a task: precedence, origins, shorthands, round trips."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from menura.config import load_env, load_task
from menura.config.origins import PACKAGE, Problems
from menura.config.overrides import parse_overrides
from menura.config.sections import SECTIONS, config_names
from menura.config.yaml_tree import format_value, parse_value
from menura.errors import ConfigError, listed

Write = Callable[..., Path]
COOL = "policy: {class: MyCoolPolicy}\n"


def test_the_guides_task(write: Write) -> None:
    task = load_task(
        write(
            'policy:\n  class: "MyCoolPolicy"  # The name of your policy class from `policy.my_cool_policy`\n'
            "  args:\n    # Hyperparameters for your MyCoolPolicyConfig\n    hidden_size: 2048\n    num_layers: 4\n"
        )
    )
    assert task.name == "x"
    assert task.project == Path.cwd()
    assert task.config.policy.class_ == "MyCoolPolicy"
    assert task.config.policy.args == {"hidden_size": 2048, "num_layers": 4}
    assert task.config.evaluation.episodes == 50
    assert task.config.datasets == []


def test_a_task_is_found_by_name_and_by_path_from_anywhere(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(COOL)
    by_name = load_task("x")
    monkeypatch.chdir("/")
    by_path = load_task(file)
    assert by_name.config == by_path.config
    assert by_path.project == by_name.project == file.parents[2]
    assert load_task("x", project=file.parents[2]).config == by_name.config


def test_every_problem_is_reported_at_once_in_the_order_of_the_lines(write: Write) -> None:
    task = write(
        "policy:\n  class: MyCoolPolicy\n  args:\n    hiden_size: 3\n    num_layers: -2\nenv: gim\n"
        "evaluation:\n  episodes: 0\n  episods: 1\ntraining:\n  max_stepz: 5\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_task(task, ["--collect.noise=much"])
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert keys == [
        "collect.noise",
        "policy.args.hiden_size",
        "policy.args.num_layers",
        "env",
        "evaluation.episodes",
        "evaluation.episods",
        "training.max_stepz",
    ]
    assert str(caught.value) == "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("task", "overrides", "episodes", "origin"),
    [
        (COOL, [], 50, "default"),
        (COOL + "evaluation: mine\n", [], 20, "configs/evaluation/mine.yaml:1"),
        (COOL + "evaluation: {base: mine, episodes: 30}\n", [], 30, "configs/task/x.yaml:2"),
        (COOL + "evaluation: {base: mine, seed: 1}\n", [], 20, "configs/evaluation/mine.yaml:1"),
        (COOL + "evaluation: {base: mine, episodes: 30}\n", ["--evaluation.episodes=40"], 40, "command line"),
        (COOL, ["--evaluation", "mine"], 20, "configs/evaluation/mine.yaml:1"),
        (COOL, ["--evaluation.base=mine"], 20, "configs/evaluation/mine.yaml:1"),
    ],
)
def test_precedence(write: Write, task: str, overrides: list[str], episodes: int, origin: str) -> None:
    file = write(task, **{"configs/evaluation/mine.yaml": "episodes: 20\n"})
    resolved = load_task(file, overrides)
    assert resolved.config.evaluation.episodes == episodes
    assert resolved.locate("evaluation.episodes") == origin


def test_a_section_of_the_project_comes_before_the_packages(write: Write) -> None:
    file = write("policy: act\n", **{"configs/policy/act.yaml": "class: MyCoolPolicy\nargs: {num_layers: 7}\n"})
    assert load_task(file).config.policy.args == {"num_layers": 7}


def test_training_starts_from_the_packaged_default(write: Write) -> None:
    defaults = parse_value((PACKAGE / "configs/training/default.yaml").read_text())
    assert load_task(write(COOL)).config.training == defaults
    resolved = load_task(write(COOL + "training: {max_steps: 7}\n"))
    assert resolved.config.training == {**defaults, "max_steps": 7}
    assert resolved.origins["training.learning_rate"].kind == "default"
    assert load_task(write(COOL + "training: {base: null, max_steps: 7}\n")).config.training == {"max_steps": 7}


@pytest.mark.parametrize(
    ("task", "overrides", "kept"),
    [
        ("training: {num_train_epochs: 3}\n", [], "num_train_epochs"),
        ("training: {max_steps: 3}\n", ["--training.num_train_epochs=2"], "num_train_epochs"),
        ("training: {num_train_epochs: 3}\n", ["--training.max_steps=2"], "max_steps"),
        ("training: {num_train_epochs: 3}\n", ["--training.max_steps=-1"], "num_train_epochs"),
        ("training: {num_train_epochs: 3, max_steps: -1}\n", [], "num_train_epochs"),
    ],
)
def test_the_stronger_of_steps_and_epochs_decides(write: Write, task: str, overrides: list[str], kept: str) -> None:
    training = load_task(write(COOL + task), overrides).config.training
    assert {"max_steps", "num_train_epochs"} & training.keys() == {kept}


@pytest.mark.parametrize(
    "overrides",
    [
        ["--policy.args.hidden_size", "512"],
        ["--policy.args.hidden_size=512"],
        ["policy.args.hidden_size=512"],
        ["--policy.args.hidden-size", "512"],
        ["--policy.args", "{hidden_size: 512}"],
        ["--policy.args.hidden_size=3", "--policy.args.hidden_size=512"],
        ["--policy.args.hidden_size=512", "--policy", "{class: MyCoolPolicy}"],
    ],
)
def test_every_spelling_of_an_override(write: Write, overrides: list[str]) -> None:
    resolved = load_task(write(COOL), overrides)
    assert resolved.config.policy.args == {"hidden_size": 512}
    assert resolved.locate("policy.args.hidden_size") == "command line"


def test_overrides_of_list_items_keep_the_list(write: Write) -> None:
    task = write(COOL + "datasets:\n- data/cube\n- class: MyData\n  args: {path: data/cube}\n")
    resolved = load_task(
        task, ["--datasets.0.weight", "2", "--datasets.1.weight", "1", "--datasets.1.args.stride", "5"]
    )
    assert [dataset.weight for dataset in resolved.config.datasets] == [2, 1]
    assert resolved.config.datasets[1].args["stride"] == 5
    assert resolved.locate("datasets.1.args.stride") == "command line"
    assert resolved.locate("datasets.1.args.path") == "configs/task/x.yaml:5"


def test_negative_numbers_are_values_not_options(write: Write) -> None:
    assert load_task(write(COOL), ["--training.seed", "-1"]).config.training["seed"] == -1


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_-: #'1", max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_a_value_is_read_back_as_it_was_written(value: Any) -> None:
    text = format_value(value)
    assert "\n" not in text
    assert parse_value(text) == value


@given(VALUES)
def test_an_override_is_the_yaml_it_holds(value: Any) -> None:
    problems = Problems(Path())
    override, followed = parse_overrides([f"--a.b={format_value(value)}", "--c.d", "0"], problems)
    assert not problems
    assert override.path == ("a", "b")
    assert override.value == value
    assert followed.path == ("c", "d")


@given(st.dictionaries(st.text("abc_-: #'", min_size=1, max_size=5), VALUES, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
def test_a_run_reloads_to_an_equal_configuration(write: Write, tmp_path: Path, free: dict[str, Any]) -> None:
    task = write(COOL + "datasets: [data/cube]\ntraining: {num_train_epochs: 2}\nevaluation: {videos: 3}\n")
    first = load_task(task, [f"--training.lr_scheduler_kwargs={format_value(free)}", "--policy.args.num_layers=2"])
    run = tmp_path / "out" / "run.yaml"
    run.parent.mkdir(exist_ok=True)
    run.write_text(first.to_yaml())
    again = load_task(run)
    assert again.config == first.config
    assert (again.name, again.project) == (first.name, first.project)
    assert again.to_yaml() == first.to_yaml()
    assert parse_value(first.to_yaml(with_origins=True)) == parse_value(first.to_yaml())


def test_a_run_whose_project_is_gone_takes_the_working_directory(write: Write, tmp_path: Path) -> None:
    write(COOL)
    run = tmp_path / "run.yaml"
    run.write_text(COOL + "project: /nowhere/at/all\n")
    assert load_task(run).project == Path.cwd()
    assert load_task(run, project=tmp_path / "project").project == tmp_path / "project"


def test_origins_of_every_value(write: Write) -> None:
    task = write(COOL + "evaluation:\n  seed: 7\n", **{"configs/policy/mine.yaml": "class: MyCoolPolicy\n"})
    resolved = load_task(task, ["--policy", "mine"])
    text = resolved.to_yaml(with_origins=True)
    origins = [" ".join(line.split()) for line in text.splitlines()]
    assert "class: MyCoolPolicy # configs/policy/mine.yaml:1" in origins
    assert "seed: 7 # configs/task/x.yaml:3" in origins
    assert "episodes: 50 # default" in origins
    assert "learning_rate: 0.001 # menura/configs/training/default.yaml:5" in origins
    assert all(
        "#" in line for line in text.splitlines() if ": " in line and not line.startswith(("name", "project", "  base"))
    )
    assert resolved.locate("evaluation.unheard_of") == "configs/task/x.yaml:2"
    assert resolved.locate("data.store") == "default"
    assert resolved.locate("unheard.of") == "default"


NORMALIZED = {
    "policy/squashed.py": """
from transformers import PretrainedConfig, PreTrainedModel

class BoundedConfig(PretrainedConfig):
    action_normalize: str = "minmax"

class SquashedPolicyConfig(BoundedConfig):
    state_normalize = "percentile"

class SquashedPolicy(PreTrainedModel):
    config_class = SquashedPolicyConfig
"""
}


@pytest.mark.parametrize(
    ("processor", "state", "action", "origins"),
    [
        ("", "percentile", "minmax", ("policy/squashed.py:8", "policy/squashed.py:5")),
        ("processor: {action: zscore}\n", "percentile", "zscore", ("policy/squashed.py:8", "configs/task/x.yaml:2")),
    ],
)
def test_a_policy_says_how_it_is_best_normalized(
    write: Write, processor: str, state: str, action: str, origins: tuple[str, str]
) -> None:
    resolved = load_task(write("policy: {class: SquashedPolicy}\n" + processor, **NORMALIZED))
    assert (resolved.config.processor.state, resolved.config.processor.action) == (state, action)
    assert (resolved.locate("processor.state"), resolved.locate("processor.action")) == origins
    again = load_task(write(resolved.to_yaml(), **NORMALIZED))
    assert again.config == resolved.config


def test_a_normalization_that_is_none_is_told_where_the_policy_says_it(write: Write) -> None:
    source = NORMALIZED["policy/squashed.py"].replace("percentile", "percentiles")
    with pytest.raises(ConfigError, match=r"processor.state: expected 'zscore'.*\(policy/squashed.py:8\)"):
        load_task(write("policy: {class: SquashedPolicy}\n", **{"policy/squashed.py": source}))


def test_interpolation(write: Write) -> None:
    task = write(COOL + "training: {max_steps: 30}\nevaluation:\n  episodes: ${training.max_steps}\n")
    assert load_task(task).config.evaluation.episodes == 30
    assert load_task(task, ["--training.max_steps=40"]).config.evaluation.episodes == 40


def test_anchors_and_merge_keys(write: Write) -> None:
    task = write(COOL + "collect: &numbers {seed: 3, episodes: 4}\nevaluation:\n  <<: *numbers\n  episodes: 5\n")
    evaluation = load_task(task).config.evaluation
    assert (evaluation.seed, evaluation.episodes) == (3, 5)


def test_scalars_follow_yaml_1_2(write: Write) -> None:
    task = load_task(
        write(COOL + "training: {learning_rate: 1e-3, save_strategy: no, seed: 0x10, max_grad_norm: .5}\n")
    )
    assert task.config.training["learning_rate"] == 1e-3
    assert task.config.training["save_strategy"] == "no"
    assert task.config.training["seed"] == 16
    assert task.config.training["max_grad_norm"] == 0.5
    assert math.isinf(parse_value(".inf"))
    assert parse_value("2020-01-01") == "2020-01-01"
    assert parse_value("1_000") == "1_000"


def test_empty_args_and_null_sections(write: Write) -> None:
    config = load_task(write("policy:\n  class: MyCoolPolicy\n  args:\nenv:\ntraining:\n")).config
    assert config.policy.args == {}
    assert config.env is None
    assert config.training["learning_rate"] == 1e-3


def test_plain_strings_are_paths_below_the_project(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(COOL + "datasets: [data/cube, data/none]\n")
    monkeypatch.chdir("/")
    first, second = load_task(file).config.datasets
    assert (first.path, first.class_, first.args) == (str(file.parents[2] / "data/cube"), None, {})
    assert second.path == "data/none"


def test_paths_of_the_command_line_begin_where_one_stands(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(COOL + "datasets: [data/none]\n")
    (tmp_path / "data" / "cube").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    resolved = load_task(file, ["--datasets.0.path", "data/cube"], need_data=True)
    assert resolved.config.datasets[0].path == str(tmp_path / "data/cube")


def test_data_is_only_looked_for_when_it_is_needed(write: Write) -> None:
    task = write(COOL + "datasets: [data/none]\n")
    load_task(task)
    with pytest.raises(ConfigError, match=r"datasets\.0\.path: no such file or folder: data/none"):
        load_task(task, need_data=True)


def test_what_is_filled_in_from_the_data_is_not_missing(write: Write) -> None:
    policy = (
        "from transformers import PretrainedConfig, PreTrainedModel\n"
        "class PlainConfig(PretrainedConfig):\n"
        "    def __init__(self, state_dim, action_dim, width, **kwargs): super().__init__(**kwargs)\n"
        "class Plain(PreTrainedModel):\n    config_class = PlainConfig\n"
    )
    task = write("policy: {class: Plain}\n", **{"policy/plain.py": policy})
    with pytest.raises(ConfigError) as caught:
        load_task(task)
    assert caught.value.problems == ("policy.args.width: required by PlainConfig, but missing (configs/task/x.yaml:1)",)
    assert load_task(task, ["--policy.args.width=3"]).config.policy.args == {"width": 3}


def test_a_configuration_cannot_be_changed(write: Write) -> None:
    config = load_task(write(COOL)).config
    with pytest.raises(ValidationError):
        config.evaluation.episodes = 3  # type: ignore[misc]


def test_an_environment_by_name_by_file_and_of_a_task(write: Write) -> None:
    env = "class: MyEnv\nargs: {task: door}\n"
    task = write(
        COOL + "env: door\n", **{"configs/env/door.yaml": env, "configs/env/bad.yaml": "class: MyEnv\narg: 1\n"}
    )
    for name in ("door", "configs/env/door.yaml", task):
        assert load_env(name).args == {"task": "door"}
    with pytest.raises(ConfigError) as caught:
        load_env("bad")
    assert caught.value.problems == (
        "env.args.task: required by MyEnv, but missing (configs/env/bad.yaml)",
        "env.arg: no such key; did you mean args? (configs/env/bad.yaml:2)",
    )
    with pytest.raises(ConfigError, match=r"env: no env is named 'dor'; did you mean door\?"):
        load_env("dor")
    with pytest.raises(ConfigError, match=r"env: expected an environment, got null"):
        load_env(write(COOL))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "y",
            "task: no task is named 'y'. Known: {known}. Looked for configs/task/y.yaml or menura/configs/task/y.yaml",
        ),
        (
            "xx",
            "task: no task is named 'xx'; did you mean x? "
            "Looked for configs/task/xx.yaml or menura/configs/task/xx.yaml",
        ),
        ("configs/task/x1.yaml", "task: no such file: configs/task/x1.yaml; did you mean configs/task/x.yaml?"),
    ],
)
def test_a_task_that_is_not_there(write: Write, name: str, message: str) -> None:
    write(COOL)
    with pytest.raises(ConfigError) as caught:
        load_task(name)
    known = config_names("task", Path.cwd())
    assert "x" in known
    assert str(caught.value) == message.format(known=listed(known))


@pytest.mark.parametrize("file", sorted((PACKAGE / "configs").rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_packaged_yaml_loads(write: Write, file: Path) -> None:
    kind = file.relative_to(PACKAGE / "configs").parts[0]
    name = file.relative_to(PACKAGE / "configs" / kind).with_suffix("").as_posix()  # such as tiny/act
    if kind in ("robot", "teleop", "controller", "keys"):
        return  # no part of a task: tests/config/test_packaged.py, tests/serving
    if kind == "task":
        assert load_task(name, project=write(COOL).parents[2]).name == file.stem
    else:
        load_task(write(f"{'' if kind == 'policy' else COOL}{kind}: {name}\n"))


def test_the_command_line_knows_every_section() -> None:
    from menura.cli.words import SECTIONS as WORDS
    from menura.config import TaskConfig

    assert set(WORDS) == set(TaskConfig.model_fields) > set(SECTIONS)
