"""Diffusion Policy of LeRobot 0.6.1 answers the same here; `fixtures/lerobot_diffusion` holds what LeRobot answered."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from menura.conversion.lerobot import diffusion
from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.lerobot.reading import read
from menura.conversion.lerobot.writing import write
from menura.errors import CheckpointError
from menura.meta_policy import MetaPolicy
from menura.policies.contract import fill_config
from menura.policies.diffusion.configuration_diffusion import DiffusionPolicyConfig
from menura.policies.diffusion.modeling_diffusion import DiffusionPolicy

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lerobot_diffusion"
sys.path.insert(0, str(FIXTURES))
from deterministic import images, uniform, weight  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "fixtures" / "lerobot_diffusion"
NAMES = ["state", "shared", "separate", "whole"]
SEED = 3


def options(name: str) -> LeRobotConfig:
    return LeRobotConfig(json.loads((FIXTURES / name / "config.json").read_text()), name)


def checkpoint(name: str, directory: Path) -> Path:
    """The directory that LeRobot wrote, with its weights."""
    shutil.copytree(FIXTURES / name, directory)
    theirs = options(name)
    facts = {
        "state_dim": theirs.state_dim + theirs.env_state_dim,
        "action_dim": theirs.action_dim,
        "camera_names": [key.rpartition(".")[2] for key in theirs.image_keys],
        "image_size": list(next(iter(theirs.image_sizes.values()), (8, 8))),
    }
    config = fill_config(DiffusionPolicyConfig, {**facts, **diffusion.config_of(theirs)})
    with torch.device("meta"):
        empty = DiffusionPolicy(config).state_dict()
    empty["action_bound"] = torch.zeros(2)
    layout = diffusion.state_dict_to(empty, config)
    tensors = {k: v if k.endswith("pos_grid") else weight(k, tuple(v.shape)) for k, v in layout.items()}
    save_file(tensors, directory / "model.safetensors")
    return directory


def observation(theirs: LeRobotConfig, steps: int) -> dict:
    state = [uniform(key, (2, steps, f.size)) for key, f in theirs.inputs.items() if f.kind != "VISUAL"]
    pixels = {key: images(key, (2, steps, *theirs.inputs[key].shape)) for key in theirs.image_keys}
    every = np.s_[:] if steps > 1 else np.s_[:, 0]  # one observation has no axis of time
    return {
        "state": np.concatenate(state, axis=-1)[every],
        "images": {key.rpartition(".")[2]: np.moveaxis(value, 2, -1)[every] for key, value in pixels.items()},
    }


def compare(meta: MetaPolicy, obs: dict, golden: dict, noise: torch.Tensor, time: int) -> None:
    """Every stage: the condition, the denoiser, the chunk and the physical actions."""
    policy, inputs = meta.policy, meta.inputs(obs)
    with torch.inference_mode():
        features = policy.encoder(inputs.get("state"), inputs.get("image"), None, None)
        close(features.flatten(1), golden["global_cond"])
        output = policy.denoise(noise, torch.full((len(noise),), time), policy.condition(inputs))
        close(output, golden[f"unet_out_t{time}"])
        torch.manual_seed(SEED)
        close(policy.sample(inputs, noise), golden["normalized_sample"])
    torch.manual_seed(SEED)
    close(meta.predict(obs, noise=noise), golden["actions"][:, meta.n_obs_steps - 1 :])


def close(ours: torch.Tensor | np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_in_lerobot(name, tmp_path):
    foreign = read(checkpoint(name, tmp_path / name), {})
    meta = MetaPolicy(foreign.policy, foreign.processor)
    golden = dict(np.load(FIXTURES / f"{name}.golden.npz"))
    noise = torch.from_numpy(uniform("noise", golden["normalized_sample"].shape))
    compare(meta, observation(options(name), meta.n_obs_steps), golden, noise, time=5)


@pytest.mark.parametrize("name", ["state", "separate", "whole"])
def test_the_way_back_gives_the_same_files(name, tmp_path):
    source = checkpoint(name, tmp_path / "source")
    foreign = read(source, {})
    write(foreign.policy, foreign.processor, tmp_path / "back")
    was, now = (load_file(tmp_path / folder / "model.safetensors") for folder in ("source", "back"))
    assert was.keys() == now.keys()
    for key, tensor in was.items():
        torch.testing.assert_close(now[key], tensor, rtol=0, atol=1e-6, msg=key)
    before, after = (json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("source", "back"))
    elsewhere = {
        "normalization_mapping",
        "pretrained_backbone_weights",
        "num_inference_steps",
        "do_mask_loss_for_padding",
    }
    same = before.keys() & after.keys() - elsewhere
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    again = read(tmp_path / "back", {})
    obs = observation(options(name), foreign.policy.config.n_obs_steps)
    noise = torch.randn(2, *foreign.policy.noise_shape)

    def answer(policy) -> np.ndarray:
        torch.manual_seed(SEED)
        return MetaPolicy(policy.policy, policy.processor).predict(obs, noise=noise)

    np.testing.assert_allclose(answer(again), answer(foreign), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the checkpoint that LeRobot saved, {SHARED}")
def test_the_checkpoint_that_lerobot_saved(tmp_path):
    foreign = read(SHARED, {})
    golden = dict(np.load(SHARED.with_suffix(".golden.npz")))
    obs = {
        "state": golden["obs/observation.state"],
        "images": {"top": np.moveaxis(golden["obs/observation.images.top"], 2, -1)},
    }
    meta = MetaPolicy(foreign.policy, foreign.processor)
    compare(meta, obs, golden, torch.from_numpy(golden["noise"]), time=50)
    write(foreign.policy, foreign.processor, tmp_path / "back")
    was, now = load_file(SHARED / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert was.keys() == now.keys()
    assert all(torch.allclose(now[key], tensor, rtol=0, atol=1e-6) for key, tensor in was.items())


def test_what_lerobot_cannot_hold_is_refused():
    config = DiffusionPolicyConfig(denoiser="transformer", camera_names=["top"])
    with pytest.raises(CheckpointError, match="got denoiser transformer"):
        diffusion.config_to(config)
    with pytest.raises(CheckpointError, match="neither a camera nor env_state_dim"):
        diffusion.config_to(DiffusionPolicyConfig())
    policy = DiffusionPolicy(DiffusionPolicyConfig(unet_widths=[8], env_state_dim=1))
    policy.action_bound += 1
    with pytest.raises(CheckpointError, match=r"processor: \{action: minmax\}"):
        diffusion.state_dict_to(policy.state_dict(), policy.config)
