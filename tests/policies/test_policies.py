"""What every policy of Menura keeps, whichever it is: the parameters are found by listing the folders."""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

import menura.policies
from menura.checkpoint.code import save_policy
from menura.features import CameraFeature, Features, VectorFeature
from menura.policies.contract import Contract, Needs, build_policy, loss_and_logs, observation
from menura.policies.needs import config_parameters

FOLDERS = Path(menura.policies.__file__).parent
STATE, ACTION, SIDE = 5, 3, 32
#: Small enough to be quick; each policy takes those of these it knows.
SMALL = {
    "chunk_size": 6,
    "n_action_steps": 3,
    "image_size": [SIDE, SIDE],
    "hidden_size": 64,
    "channels": 8,
    "feedforward_size": 64,
    "n_heads": 2,
    "n_encoder_layers": 2,
    "n_decoder_layers": 2,
    "latent_dim": 4,
    "backbone_widths": [16, 32],
    "backbone_depths": [1, 1],
}


def policy_classes() -> list[type[PreTrainedModel]]:
    found = []
    for path in sorted(FOLDERS.glob("*/modeling_*.py")):
        module = importlib.import_module(f"menura.policies.{path.parent.name}.{path.stem}")
        found += [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, PreTrainedModel) and value.__module__ == module.__name__
        ]
    return found


POLICIES = policy_classes()
CAMERAS = [(), ("front",), ("front", "wrist")]


def takes_images(policy_class: type[PreTrainedModel]) -> bool:
    return Contract.of(policy_class).uses_images


#: Every policy with every number of cameras it can have.
CASES = [(p, cameras) for p in POLICIES for cameras in CAMERAS if not cameras or takes_images(p)]
ids = [f"{p.__name__}-{len(cameras)}" for p, cameras in CASES]
every_case = pytest.mark.parametrize(("policy_class", "cameras"), CASES, ids=ids)
every_policy = pytest.mark.parametrize("policy_class", POLICIES, ids=[p.__name__ for p in POLICIES])


def make(policy_class: type[PreTrainedModel], cameras: tuple[str, ...] = (), **args) -> PreTrainedModel:
    features = Features(
        state=VectorFeature.of_width(STATE, "state"),
        action=VectorFeature.of_width(ACTION, "action"),
        cameras={name: CameraFeature(SIDE, SIDE) for name in cameras},
        fps=10.0,
    )
    known = config_parameters(policy_class.config_class)
    return build_policy(policy_class, {**{k: v for k, v in SMALL.items() if k in known}, **args}, features)


def make_batch(policy: PreTrainedModel, size: int = 4) -> dict[str, Tensor]:
    needs = Needs.of(policy.config)
    time = () if needs.n_obs_steps == 1 else (needs.n_obs_steps,)
    batch = {
        "state": torch.randn(size, *time, STATE),
        "actions": torch.randn(size, needs.chunk_size, ACTION),
        "is_pad": torch.zeros(size, needs.chunk_size, dtype=torch.bool),
    }
    batch["is_pad"][0, -2:] = True
    if needs.camera_names:
        batch["image"] = torch.rand(size, *time, len(needs.camera_names), 3, SIDE, SIDE)
    return batch


def loss_of(policy: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    return loss_and_logs(policy(**Contract.of(type(policy)).select(batch)))[0]


def test_there_are_policies():
    assert len(POLICIES) >= 3


@every_policy
def test_the_defaults_build(policy_class):
    policy = policy_class(policy_class.config_class())
    assert sum(p.numel() for p in policy.parameters()) > 0


@every_case
def test_every_parameter_gets_a_gradient(policy_class, cameras):
    policy = make(policy_class, cameras)
    loss_of(policy, make_batch(policy)).backward()
    without = [n for n, p in policy.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)


@every_case
def test_padded_steps_do_not_change_the_loss(policy_class, cameras):
    policy = make(policy_class, cameras).eval()
    batch = make_batch(policy)
    before = loss_of(policy, batch)
    batch["actions"][batch["is_pad"]] = 1e3
    assert torch.equal(loss_of(policy, batch), before)


@every_policy
def test_a_batch_of_padding_has_a_finite_loss(policy_class):
    policy = make(policy_class)
    batch = make_batch(policy)
    batch["is_pad"][:] = True
    loss = loss_of(policy, batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)


@every_case
def test_eight_samples_are_learnt_by_heart(policy_class, cameras):
    policy = make(policy_class, cameras).train()
    batch = make_batch(policy, 8)
    # How far the policy is from the demonstrations as it acts, whatever else its loss holds.
    obs = observation(batch)

    def error() -> float:
        policy.eval()
        difference = (policy.select_action(obs) - batch["actions"]).abs().mean(dim=-1)
        policy.train()
        return float(difference[~batch["is_pad"]].mean())

    before = error()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(policy, batch).backward()
        optimizer.step()
    assert error() < 0.35 * before


@every_case
def test_saved_and_loaded_it_answers_the_same(policy_class, cameras, tmp_path):
    policy = make(policy_class, cameras, chunk_size=7, n_action_steps=2).eval()
    policy.save_pretrained(tmp_path)
    again = policy_class.from_pretrained(tmp_path).eval()
    assert Needs.of(again.config) == Needs.of(policy.config)
    obs = observation(make_batch(policy))
    assert torch.equal(again.select_action(obs), policy.select_action(obs))
    frozen = {n for n, p in policy.named_parameters() if not p.requires_grad}
    assert {n for n, p in again.named_parameters() if not p.requires_grad} == frozen


@every_case
def test_the_batch_is_left_as_it_was(policy_class, cameras):
    policy = make(policy_class, cameras)
    batch = make_batch(policy)
    before = copy.deepcopy(batch)
    loss_of(policy, batch).backward()
    policy.select_action(observation(batch))
    assert batch.keys() == before.keys()
    assert all(torch.equal(batch[key], before[key]) for key in batch)


@every_case
def test_rows_do_not_influence_each_other(policy_class, cameras):
    policy = make(policy_class, cameras).eval()
    obs = observation(make_batch(policy))
    alone = {key: value[1:2] for key, value in obs.items()}
    torch.testing.assert_close(policy.select_action(obs)[1:2], policy.select_action(alone), rtol=1e-4, atol=1e-5)


@every_case
@pytest.mark.parametrize("chunk_size", [1, 5])
def test_the_chunk_is_as_long_as_the_config_says(policy_class, cameras, chunk_size):
    policy = make(policy_class, cameras, chunk_size=chunk_size, n_action_steps=1)
    obs = observation(make_batch(policy))
    assert policy.select_action(obs).shape == (4, chunk_size, ACTION)
    assert policy(**Contract.of(policy_class).select(obs)).shape == (4, chunk_size, ACTION)


@pytest.mark.parametrize(
    ("policy_class", "cameras"),
    [case for case in CASES if "n_obs_steps" in config_parameters(case[0].config_class)],
)
def test_several_observation_steps(policy_class, cameras):
    policy = make(policy_class, cameras, n_obs_steps=3)
    batch = make_batch(policy)
    loss_of(policy, batch).backward()
    assert policy.select_action(observation(batch)).shape == (4, 6, ACTION)


@every_policy
def test_a_seed_repeats_training_exactly(policy_class):
    def train() -> Tensor:
        torch.manual_seed(3)
        policy = make(policy_class)
        batch = make_batch(policy)
        optimizer = torch.optim.SGD(policy.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            loss = loss_of(policy, batch)
            loss.backward()
            optimizer.step()
        return loss

    assert torch.equal(train(), train())


LOAD_WITHOUT_MENURA = """
import json, sys
sys.modules["menura"] = None  # any import of it fails
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
for name in json.loads(sys.argv[1]):
    policy = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
    save_file({"actions": policy.select_action(load_file(f"{name}/obs.safetensors"))}, f"{name}/answer.safetensors")
"""


def test_every_policy_loads_in_a_fresh_process_without_menura(tmp_path):
    expected = {}
    for policy_class, cameras in CASES:
        policy = make(policy_class, cameras).eval()
        directory = tmp_path / f"{policy_class.__name__}_{len(cameras)}"
        save_policy(policy, directory)
        obs = observation(make_batch(policy))
        save_file(obs, directory / "obs.safetensors")
        expected[str(directory)] = policy.select_action(obs)
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD_WITHOUT_MENURA, json.dumps(list(expected))]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, actions in expected.items():
        answer = load_file(f"{name}/answer.safetensors")["actions"]
        torch.testing.assert_close(answer, actions, rtol=0, atol=0, msg=name)
