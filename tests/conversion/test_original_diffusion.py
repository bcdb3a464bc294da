"""The authors' Diffusion Policy answers the same here; `fixtures/original_diffusion` has their networks' answers."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from menura.conversion.original.diffusion_policy import read, recognises
from menura.errors import CheckpointError
from menura.meta_policy import MetaPolicy

FIXTURES = Path(__file__).parents[1] / "fixtures" / "original_diffusion"
sys.path.insert(0, str(FIXTURES.parent / "lerobot_diffusion"))
from deterministic import images, uniform, weight  # noqa: E402

NAMES = [
    "unet_lowdim",
    "transformer_lowdim",
    "unet_hybrid",
    pytest.param("transformer_hybrid", marks=pytest.mark.slow),  # whose two halves the others have
]
SEED = 3


def described(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def observed(name: str) -> dict[str, list[int]]:
    """Key -> shape of one observation, in the order of the checkpoint's configuration."""
    shapes = described(name)["policy"].get("shape_meta")
    return {"obs": [5]} if shapes is None else {key: entry["shape"] for key, entry in shapes["obs"].items()}


def weights(name: str) -> OrderedDict[str, Tensor]:
    """As a policy's `state_dict()` has them; twice the same where the authors' encoder holds a part by two names."""
    layout = described(name)["layout"]
    made: dict[str, Tensor] = {}
    result: OrderedDict[str, Tensor] = OrderedDict({"_dummy_variable": torch.zeros(0)})
    for key, (shape, source) in layout.items():
        if source:
            made.setdefault(source, weight(source, tuple(shape)))
        result[key] = made[source] if source else torch.ones(shape)
    widths = {key: shape[0] for key, shape in observed(name).items()}
    for key, width in {"action": 3, **widths}.items():
        scale, offset = 1 + 0.5 * uniform(f"{key}.scale", (width,)), uniform(f"{key}.offset", (width,))
        if "image" in key:
            width = 1
            scale, offset = np.full(1, 2, np.float32), np.full(1, -1, np.float32)
        prefix = f"normalizer.params_dict.{key}."
        result[f"{prefix}scale"], result[f"{prefix}offset"] = torch.from_numpy(scale), torch.from_numpy(offset)
        result[f"{prefix}input_stats.min"] = torch.zeros(width)
    return result


def checkpoint(name: str, path: Path, **policy: Any) -> Path:
    """A file as the authors' `BaseWorkspace.save_checkpoint` writes it."""
    own = described(name)["policy"]
    target = "diffusion_policy.workspace.train_workspace.TrainWorkspace"
    cfg = OmegaConf.create({"_target_": target, "policy": {**own, **policy}, "task": {"abs_action": False}})
    averaged = weights(name)
    last = OrderedDict((key, tensor + 1) for key, tensor in averaged.items())
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    state_dicts = {"model": last, "ema_model": averaged, "optimizer": optimizer}
    torch.save({"cfg": cfg, "state_dicts": state_dicts, "pickles": {"global_step": b"\x80\x04K\x01."}}, path)
    return path


def observation(name: str) -> dict[str, Any]:
    shapes = observed(name)
    state = [uniform(key, (2, 2, *shape)) for key, shape in shapes.items() if len(shape) == 1]
    cameras = {key: np.moveaxis(images(key, (2, 2, *shape)), 2, -1) for key, shape in shapes.items() if len(shape) == 3}
    return {"state": np.concatenate(state, axis=-1), **({"images": cameras} if cameras else {})}


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_the_authors_network(name, tmp_path):
    path = checkpoint(name, tmp_path / "latest.ckpt")
    assert recognises(path)
    foreign = read(path, {})
    meta, golden = MetaPolicy(foreign.policy, foreign.processor), np.load(FIXTURES / f"{name}.golden.npz")
    obs, noise = observation(name), torch.from_numpy(uniform("noise", (2, 8, 3)))
    inputs = meta.inputs(obs)
    with torch.inference_mode():
        output = meta.policy.denoise(noise, torch.full((2,), 5), meta.policy.condition(inputs))
        np.testing.assert_allclose(output, golden["output_t5"], rtol=1e-4, atol=1e-4)
        torch.manual_seed(SEED)
        np.testing.assert_allclose(meta.policy.sample(inputs, noise), golden["sample"], rtol=1e-4, atol=1e-4)
    torch.manual_seed(SEED)
    np.testing.assert_allclose(meta.predict(obs, noise=noise), golden["actions"][:, 1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_target_": "x.DiffusionUnetVideoPolicy"}, "got 'DiffusionUnetVideoPolicy'"),
        ({"obs_as_global_cond": False}, "obs_as_global_cond True, got False: the observations must be the condition"),
        ({"oa_step_convention": False}, "oa_step_convention True, got False"),
        ({"horizon": 4, "n_action_steps": 4}, "chunk_size of at least"),
    ],
)
def test_what_is_not_here_is_refused(changes, message, tmp_path):
    path = checkpoint("unet_lowdim", tmp_path / "latest.ckpt", **changes)
    with pytest.raises(CheckpointError if "chunk" not in message else Exception, match=message):
        read(path, {})


def test_a_tensor_left_over_is_told(tmp_path, monkeypatch):
    path = checkpoint("unet_lowdim", tmp_path / "latest.ckpt")
    payload = torch.load(path, weights_only=False)
    payload["state_dicts"]["ema_model"]["model.local_cond_encoder.0.residual_conv.weight"] = torch.zeros(1)
    torch.save(payload, path)
    with pytest.raises(CheckpointError, match="local_cond_encoder"):
        read(path, {})


def test_other_checkpoints_are_not_recognised(tmp_path):
    torch.save({"cfg": {}, "state_dicts": {}}, tmp_path / "other.ckpt")
    assert not recognises(tmp_path / "other.ckpt")
    assert not recognises(tmp_path)
