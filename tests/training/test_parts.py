"""State without pickle, averaged weights, threads, arguments, batches."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from menura.errors import CheckpointError
from menura.training.checkpoints import checkpoints, keep_newest, written_whole
from menura.training.ema import WeightAverage
from menura.training.loader import EpochBatches
from menura.training.state import (
    load_tree,
    random_state,
    save_tree,
    set_random_state,
    untouched_randomness,
)

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=30, deadline=None)
@given(tree=trees)
def test_any_tree_of_numbers_and_text_reads_back_equal(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("tree")
    save_tree(directory, "state", tree)
    assert load_tree(directory, "state") == tree


def test_tensors_read_back_equal_in_type_and_bits(tmp_path: Path) -> None:
    row = torch.arange(6.0).reshape(2, 3)
    tree = {
        "views": [row[0], row[:, 1], row],
        3: {"step": torch.tensor(7.0), "half": torch.tensor([1.5], dtype=torch.bfloat16)},
        "odd": (math.inf, -0.0, torch.tensor([math.nan])),
        "numpy": np.arange(3, dtype=np.uint32),
        "empty": torch.zeros(0),
    }
    save_tree(tmp_path, "state", tree)
    back = load_tree(tmp_path, "state")
    assert [view.tolist() for view in back["views"]] == [[0, 1, 2], [1, 4], [[0, 1, 2], [3, 4, 5]]]
    assert back[3]["step"].shape == ()
    assert back[3]["half"].dtype == torch.bfloat16
    assert back["odd"][0] == math.inf
    assert math.copysign(1, back["odd"][1]) == -1
    assert back["odd"][2].isnan().all()
    assert back["numpy"].tolist() == [0, 1, 2]
    assert back["empty"].shape == (0,)


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"training state scheduler\.lambdas\.0: expected numbers, .* got function"
    ):
        save_tree(tmp_path, "scheduler", {"lambdas": [lambda step: step]})


def draw() -> tuple[float, ...]:
    return random.random(), np.random.random(), np.random.normal(), torch.rand(()).item()  # noqa: NPY002


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    draw()
    save_tree(tmp_path, "random", random_state())
    expected = [draw() for _ in range(3)]
    draw()
    set_random_state(load_tree(tmp_path, "random"))
    assert [draw() for _ in range(3)] == expected


def test_untouched_randomness() -> None:
    state = random_state()
    with untouched_randomness():
        inside = draw()
    assert draw() == inside
    set_random_state(state)


def test_average_follows_the_published_schedule() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.9)
    mean, weights = model.weight.item(), [0.5, -2.0, 3.0, 1.0, 4.0, -1.0] * 10
    for n, weight in enumerate(weights):
        model.weight.data.fill_(weight)
        average.update()
        decay = min(0.9, 1 - (1 + n) ** -0.75)
        mean = decay * mean + (1 - decay) * weight
    with average.applied():
        assert model.weight.item() == pytest.approx(mean, rel=1e-5)
    assert model.weight.item() == weights[-1]


def test_average_leaves_frozen_parameters_and_buffers_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    average = WeightAverage(model, decay=0.5)
    model[1].running_mean.fill_(3.0)
    average.update()
    with average.applied():
        assert model[1].running_mean.tolist() == [3.0, 3.0]
    assert set(average.state()["means"]) == {"0.bias", "1.weight", "1.bias"}


class Order:
    def __init__(self, length: int) -> None:
        self.length = length
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Any:
        return iter(range(self.epoch * 100, self.epoch * 100 + self.length))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


@given(length=st.integers(1, 30), size=st.integers(1, 10), drop_last=st.booleans())
def test_batches_cover_an_epoch_in_order(length: int, size: int, drop_last: bool) -> None:
    batches = EpochBatches(Order(length), size, drop_last)
    batches.set_epoch(2)
    made = list(batches)
    assert len(made) == len(batches)
    whole = length // size * size if drop_last else length
    assert [index for batch in made for index in batch] == list(range(200, 200 + whole))
    assert all(len(batch) == size for batch in made[:-1])


def make_checkpoints(run: Path, *steps: int) -> None:
    for step in steps:
        (run / f"checkpoint-{step}").mkdir()
        (run / f"checkpoint-{step}" / "trainer_state.json").touch()


def test_the_newest_and_the_protected_are_kept(tmp_path: Path) -> None:
    make_checkpoints(tmp_path, 100, 20, 3, 40)
    (tmp_path / "checkpoint-500").mkdir()  # incomplete, as other software leaves it
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in (3, 20, 40, 100)]
    keep_newest(tmp_path, None, None)
    assert len(checkpoints(tmp_path)) == 4
    keep_newest(tmp_path, 1, tmp_path / "checkpoint-3")
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-100"]


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with written_whole(tmp_path / "checkpoint-1") as directory:
            (directory / "half").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []
