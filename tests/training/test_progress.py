"""What a training shows while it runs, and what it leaves for TensorBoard."""

from __future__ import annotations

import importlib
import io
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState

import menura
from menura.config import load_task
from menura.training.arguments import training_arguments

PROJECT = Path(__file__).with_name("project")


def shown(*, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    """What 50 of 100 steps of 8 samples print, a second each."""
    progress = importlib.import_module("menura.training.progress")
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    out = io.StringIO()
    bar = progress.ProgressBar(Console(file=out, force_terminal=terminal, width=100), samples_per_step=8)
    args, control = SimpleNamespace(disable_tqdm=False), TrainerControl()
    state = TrainerState(max_steps=100, is_world_process_zero=True)
    bar.on_train_begin(args, state, control)
    for state.global_step in range(1, 51):
        bar.on_log(args, state, control, logs={"loss": 0.5})
        bar.on_step_end(args, state, control)
    monkeypatch.undo()
    bar.close()
    return out.getvalue()


def test_a_bar_with_loss_samples_per_second_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown(terminal=True, monkeypatch=monkeypatch))
    assert re.search(r"training .*50/100 loss 0\.5 +\d+ samples/s +(\d+:\d\d|-+:-+)", text), text[-300:]


def test_a_line_now_and_then_where_the_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(terminal=False, monkeypatch=monkeypatch).splitlines()
    assert 1 <= len(lines) <= 4
    assert re.fullmatch(r"step \d+/100  loss 0\.5  \d+ samples/s  \d+\.\d min left", lines[0])


def test_tensorboard_by_default_with_every_scalar_of_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "project")
    packaged = load_task("aloha_transfer")
    assert training_arguments(packaged, tmp_path / "run").report_to == ["tensorboard"]
    menura.train(
        "reach",
        output_dir="out",
        overrides=["--training.report_to=tensorboard", "--training.max_steps=2", "--training.logging_steps=1"],
    )
    (events,) = Path("out/tensorboard").rglob("events.out.tfevents.*")
    written = events.read_bytes()
    assert b"train/loss" in written
    assert b"train/largest" in written
