"""The command line as a user's shell sees it: exit codes, messages, and how little is imported for them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from menura.cli.words import split_words

# Runs the command and reports what it had imported when it ended.
PROGRAM = """\
import atexit, json, sys
from pathlib import Path
from menura.cli.main import main
atexit.register(lambda: Path(sys.argv[1]).write_text(json.dumps(sorted(sys.modules))))
main(sys.argv[2:])
"""
HEAVY = {
    "torch",
    "transformers",
    "accelerate",
    "mujoco",
    "dm_control",
    "metaworld",
    "gym_aloha",
    "gymnasium",
    "tensorboard",
}
COMMANDS = (
    "train",
    "eval",
    "collect",
    "replay",
    "preflight",
    "compare",
    "reproduce",
    "config",
    "serve",
    "check",
    "new",
)
POLICY = """\
from transformers import PretrainedConfig, PreTrainedModel
class MyCoolPolicyConfig(PretrainedConfig):
    def __init__(self, hidden_size=1024, **kwargs):
        super().__init__(**kwargs)
class MyCoolPolicy(PreTrainedModel):
    config_class = MyCoolPolicyConfig
"""
WRONG = """\
policy:
  class: MyCoolPolicy
  args:
    hiden_size: 512
training: {max_stpes: 3}
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str
    imported: frozenset[str]
    cpu_s: float


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in {
        "policy/my_cool_policy.py": POLICY,
        "configs/task/good.yaml": "policy: {class: MyCoolPolicy}\ndatasets: [data]\n",
        "configs/task/bad.yaml": WRONG,
        "data/x": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def menura(project: Path, *words: str, **environment: str) -> Done:
    report = project / "imported.json"
    report.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(report), *words],
        cwd=project,
        env={**os.environ, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    imported = frozenset(json.loads(report.read_text())) if report.exists() else frozenset()
    return Done(done.returncode, done.stdout, done.stderr, imported, cpu_s)


def test_help_is_light(project: Path) -> None:
    done = menura(project, "--help")
    assert done.code == 0
    assert all(f"  {command} " in done.out for command in COMMANDS)
    assert not done.imported & (HEAVY | {"pydantic", "yaml", "omegaconf", "rich"})


@pytest.mark.parametrize("words", [*((command,) for command in COMMANDS), ("check", "run"), ("new", "policy")])
def test_help_of_every_command_is_light(project: Path, words: tuple[str, ...]) -> None:
    done = menura(project, *words, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: menura {' '.join(words)} ")
    assert not done.imported & (HEAVY | {"menura.config", "yaml", "omegaconf"})  # typer itself takes pydantic


def test_config_prints_values_and_origins(project: Path) -> None:
    done = menura(project, "config", "good", "--policy.args.hidden-size", "5", "--evaluation.episodes=7")
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "hidden_size: 5 # command line" in lines
    assert "episodes: 7 # command line" in lines
    assert f"- path: {project}/data # configs/task/good.yaml:2" in lines
    assert not done.imported & HEAVY


@pytest.mark.parametrize("command", ["train", "collect", "config"])
def test_a_wrong_yaml_is_refused_before_torch(project: Path, command: str) -> None:
    done = menura(project, command, "bad", "--evaluation.episodes", "many")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        "evaluation.episodes: expected a whole number, got 'many' (command line)",
        *(["datasets: expected at least one dataset, got none (configs/task/bad.yaml)"] if command == "train" else []),
        "policy.args.hiden_size: no such argument of MyCoolPolicyConfig; did you mean hidden_size? "
        "(configs/task/bad.yaml:4)",
        "training.max_stpes: no such field of transformers.TrainingArguments; did you mean max_steps? "
        "(configs/task/bad.yaml:5)",
    ]
    assert not done.imported & HEAVY


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "god"), "task: no task is named 'god'; did you mean good? "),
        (("train", "good"), "datasets.0.path: "),
        (("eval", "-m", "run", "-e", "metaword"), "env: no env is named 'metaword'"),
        (("replay", "data", "-e", "nothing"), "env: no env is named 'nothing'"),
        (("check", "policy", "MyColPolicy"), "no policy class is named 'MyColPolicy'; did you mean MyCoolPolicy? "),
    ],
)
def test_what_does_not_exist_is_refused_before_torch(project: Path, words: tuple[str, ...], message: str) -> None:
    (project / "data" / "x").unlink()
    (project / "data").rmdir()
    done = menura(project, *words)
    assert done.code == 2
    assert done.err.startswith(message)
    assert "Traceback" not in done.err
    assert not done.imported & HEAVY


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trian", "good"), "Did you mean 'train'?"),
        (("train", "good", "--otput_dir", "x"), "No such option: --otput_dir"),
        (("train", "good", "--otput_dir", "x"), "--output_dir"),
        (("eval", "-m", "run", "--num-env", "3"), "--num_envs"),
        (("eval", "-m", "run", "--policy.args.x", "3"), "No such option: --policy.args.x"),
        (("eval",), "Missing option '--model'"),
        (
            ("train", "good", "--max_steps", "3"),
            "No such option: --max_steps (Possible options: --training.max_steps)",
        ),
        (("train", "good", "--max-steps=3"), "No such option: --max_steps (Possible options: --training.max_steps)"),
        (
            ("collect", "good", "--num_envs=3"),
            "No such option: --num_envs (Possible options: --evaluation.num_envs)",
        ),
        (("config", "good", "--seed=3"), "(Possible options: --collect.seed, --evaluation.seed, --training.seed)"),
        (("eval", "-m", "run", "--exact=1"), "No such option: --exact (Possible options: --evaluation.exact)"),
        (("compare", "a", "b", "--max_steps=1"), "No such option: --max_steps\n"),
    ],
)
def test_a_wrong_option(project: Path, words: tuple[str, ...], message: str) -> None:
    done = menura(project, *words)
    assert done.code == 2
    assert message in done.err
    assert not done.imported & HEAVY


def test_debug_shows_where_an_error_was_raised(project: Path) -> None:
    for done in (menura(project, "config", "bad", "--debug"), menura(project, "config", "bad", MENURA_DEBUG="1")):
        assert done.code == 1
        assert "Traceback" in done.err
        assert "menura.errors.ConfigError: policy.args.hiden_size: " in done.err


@pytest.mark.parametrize(
    ("words", "rest", "overrides"),
    [
        (["train", "x", "--a.b", "1", "--output-dir", "o"], ["train", "x", "--output_dir", "o"], ["--a.b", "1"]),
        (["train", "--a.b=1", "x"], ["train", "x"], ["--a.b=1"]),
        (["train", "--a.b", "-1", "x"], ["train", "x"], ["--a.b", "-1"]),
        (["train", "x", "--a.b", "--blind"], ["train", "x", "--blind"], ["--a.b"]),
        (["train", "x", "--policy", "act", "--data=d"], ["train", "x"], ["--policy", "act", "--data=d"]),
        (["train", "--output_dir=./a.b"], ["train", "--output_dir=./a.b"], []),
        (["train", "--", "--a.b", "1"], ["train", "--", "--a.b", "1"], []),
        (["preflight", "x", "--policy.args.a", "1"], ["preflight", "x"], ["--policy.args.a", "1"]),
        (["eval", "--a.b", "1", "--num-envs=3"], ["eval", "--a.b", "1", "--num_envs=3"], []),
        (["eval", "--env", "x", "--env.args.a=1"], ["eval", "--env", "x"], ["--env.args.a=1"]),
        (["eval", "--evaluation.exact", "true"], ["eval"], ["--evaluation.exact", "true"]),
        (
            ["eval", "--controller", "x", "--controller.args.a=1"],
            ["eval", "--controller", "x"],
            ["--controller.args.a=1"],
        ),
        (["serve", "--a.b", "1", "--api-key-file=k"], ["serve", "--a.b", "1", "--api_key_file=k"], []),
        ([], [], []),
    ],
)
def test_words(words: list[str], rest: list[str], overrides: list[str]) -> None:
    assert split_words(words) == (rest, overrides)


def test_ctrl_c_is_one_line(project: Path) -> None:
    """A policy's file that never ends stands for any long work."""
    pipe = project / "policy" / "slow.py"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-c", "from menura.cli.main import main; main()", "config", "good"],
        cwd=project,
        stderr=subprocess.PIPE,
        text=True,
        # A process in the background of a shell ignores Ctrl-C, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    writer = _open_for_writing(pipe, deadline=time.monotonic() + 30)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    os.close(writer)
    assert (process.returncode, error) == (130, "Interrupted.\n")


def _open_for_writing(pipe: Path, deadline: float) -> int:
    """Open a pipe as soon as somebody reads it."""
    while (opened := _try_to_open(pipe)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return opened


def _try_to_open(pipe: Path) -> int | None:
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody reads yet
        return None


def test_what_the_system_refuses_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "policy").touch()
    done = menura(tmp_path, "new", "policy", "other")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"{tmp_path / 'policy'}: expected the system to allow it, got: ")
    assert "Traceback" not in done.err


def test_the_package_is_a_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "menura", "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:13]) == (0, "Usage: menura")
