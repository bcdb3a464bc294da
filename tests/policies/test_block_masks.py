"""Which tokens see which, drawn by hand."""

from __future__ import annotations

import torch

from menura.policies.common.block_masks import block_causal_mask, positions_of


def drawn(*lines: str) -> torch.Tensor:
    return torch.tensor([[mark == "x" for mark in line] for line in lines])


def everything(n: int) -> torch.Tensor:
    return torch.ones(1, n, dtype=torch.bool)


def test_pi0_reads_images_and_text_then_the_state_then_the_actions():
    mask = block_causal_mask(everything(7), (3, 1, 3))
    picture = drawn(
        "xxx....",
        "xxx....",
        "xxx....",
        "xxxx...",
        "xxxxxxx",
        "xxxxxxx",
        "xxxxxxx",
    )
    assert torch.equal(mask[0, 0], picture)


def test_the_actions_of_smolvla_are_causal():
    mask = block_causal_mask(everything(6), (2, 1, 1, 1, 1))
    picture = drawn(
        "xx....",
        "xx....",
        "xxx...",
        "xxxx..",
        "xxxxx.",
        "xxxxxx",
    )
    assert torch.equal(mask[0, 0], picture)


def test_nothing_attends_to_padding():
    there = torch.tensor([[True, False, True, True, True]])
    mask = block_causal_mask(there, (3, 2))
    picture = drawn(
        "x.x..",
        "x.x..",
        "x.x..",
        "x.xxx",
        "x.xxx",
    )
    assert torch.equal(mask[0, 0], picture)


def test_the_last_rows_alone():
    there = torch.tensor([[True, False, True, True, True], [True] * 5])
    whole = block_causal_mask(there, (2, 1, 2))
    assert torch.equal(block_causal_mask(there, (2, 1, 2), 2), whole[:, :, -2:])


def test_positions_count_what_is_there():
    there = torch.tensor([[False, True, True, False, True], [True, True, True, True, False]])
    assert positions_of(there).tolist() == [[0, 0, 1, 1, 2], [0, 1, 2, 3, 3]]
