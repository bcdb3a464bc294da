"""From arrays to tensors without a copy."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader

from menura.data import collate, windows


def test_tensors_share_the_arrays_memory(make_reader, tmp_path):
    reader = make_reader([9], cameras={"top": (2, 2), "wrist": (3, 4)})
    data = windows(reader, (-1, 0), range(4), cache_dir=tmp_path, progress=False, num_workers=0)
    arrays = data.__getitems__([0, 5])
    tensors = collate(arrays)
    assert list(tensors) == list(arrays)
    assert tensors["task"] == ["task 0", "task 0"]
    for key in ("state", "actions", "is_pad", "observation_is_pad", "timestep", "dataset_id"):
        assert tensors[key].data_ptr() == arrays[key].ctypes.data
    assert tensors["image"]["wrist"].data_ptr() == arrays["image"]["wrist"].ctypes.data
    dtypes = {key: value.dtype for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    assert dtypes == {
        "state": torch.float32,
        "observation_is_pad": torch.bool,
        "actions": torch.float32,
        "is_pad": torch.bool,
        "timestep": torch.int64,
        "dataset_id": torch.int64,
    }


def test_single_items_give_the_same_batch(make_reader, tmp_path):
    reader = make_reader([9], cameras={"top": (2, 2), "wrist": (3, 4)})
    data = windows(reader, (0,), None, cache_dir=tmp_path, progress=False, num_workers=0)
    expected = collate(data.__getitems__([3, 8]))
    got = collate([data[3], data[8]])
    assert list(got) == list(expected)
    assert got["task"] == expected["task"]
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert got[key].dtype == value.dtype
            assert torch.equal(got[key], value)
    assert torch.equal(got["image"]["wrist"], expected["image"]["wrist"])


def test_as_collate_fn_of_a_list():
    items = [{"state": np.full(2, i, np.float32), "task": str(i), "timestep": np.int64(i)} for i in range(4)]
    first, second = DataLoader(items, batch_size=2, collate_fn=collate)
    assert first["task"] == ["0", "1"]
    assert second["state"].tolist() == [[2, 2], [3, 3]]
    assert second["timestep"].dtype == torch.int64
