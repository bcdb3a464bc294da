"""What every policy of Menura keeps, whichever it is: the policies are found by listing the folders.

Each is made as its section `configs/policy/tiny/<name>.yaml` says, with every number of cameras it can have.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._inductor import config as inductor
from transformers import PreTrainedModel

import menura.policies
from menura.checkpoint.code import save_policy
from menura.components import BUILT_IN
from menura.errors import ConfigError
from menura.features import CameraFeature, Features, VectorFeature
from menura.policies.check import check_policy
from menura.policies.checking.samples import make_batch as make_samples
from menura.policies.contract import Contract, Needs, build_policy, fill_config, loss_and_logs, observation
from menura.policies.needs import config_parameters
from menura.training.finetuning import quantized

FOLDERS = Path(menura.policies.__file__).parent
SECTIONS = FOLDERS.parent / "configs" / "policy"
STATE, ACTION = 5, 3
NAMES = sorted(path.parent.name for path in FOLDERS.glob("*/modeling_*.py"))
CAMERAS = {0: (), 1: ("front",), 2: ("front", "wrist")}


def policy_class(name: str) -> type[PreTrainedModel]:
    """The one policy of a folder."""
    module = importlib.import_module(f"menura.policies.{name}.modeling_{name}")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, PreTrainedModel) and value.__module__ == module.__name__
    ]
    return next(value for value in own if value.__name__.endswith("Policy"))


@functools.cache
def tiny(name: str) -> dict[str, Any]:
    return yaml.safe_load((SECTIONS / "tiny" / f"{name}.yaml").read_text()).get("args") or {}


def takes_images(name: str) -> bool:
    contract = Contract.of(policy_class(name))
    return contract.uses_images and "camera_names" in config_parameters(policy_class(name).config_class)


def refusal(name: str, cameras: int, **args: Any) -> str | None:
    """Why the policy cannot be made so; None when it can."""
    try:
        make(name, cameras, **args)
    except ConfigError as problem:
        return str(problem)
    return None


def features(cameras: int, side: tuple[int, int] = (32, 32)) -> Features:
    return Features(
        state=VectorFeature.of_width(STATE, "state"),
        action=VectorFeature.of_width(ACTION, "action"),
        cameras={name: CameraFeature(*side) for name in CAMERAS[cameras]},
        fps=10.0,
        language=True,
    )


def encoder_dim(name: str, cameras: int) -> int | None:
    """Of a policy that takes features of images alone."""
    known = config_parameters(policy_class(name).config_class)
    return (
        8 if cameras and "image_feature_dim" in known and "image" not in Contract.of(policy_class(name)).keys else None
    )


def make(name: str, cameras: int = 0, seed: int = 0, **args: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    args = {**tiny(name), **args}
    return build_policy(policy_class(name), args, features(cameras), image_encoder_dim=encoder_dim(name, cameras))


def make_batch(policy: PreTrainedModel, name: str, cameras: int, size: int = 4, seed: int = 0) -> dict[str, Any]:
    return make_samples(policy.config, features(cameras), encoder_dim(name, cameras), size, seed)


def loss_of(policy: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
    return loss_and_logs(policy(**Contract.of(type(policy)).select(batch)))[0]


def act(policy: PreTrainedModel, obs: dict[str, Any], seeds: list[int] | None = None) -> Tensor:
    """What it answers; of a policy that samples, with a generator for each row."""
    extra: dict[str, Any] = {}
    rows = len(next(iter(obs.values())))
    if samples(type(policy)):
        extra["generator"] = [torch.Generator().manual_seed(s) for s in (seeds or range(rows))]
    policy.eval()
    with torch.no_grad():
        return policy.select_action(obs, **extra)


def samples(cls: type[PreTrainedModel]) -> bool:
    return "generator" in inspect.signature(cls.select_action).parameters


def row_of(obs: dict[str, Any], row: int) -> dict[str, Any]:
    return {key: value[row : row + 1] for key, value in obs.items()}


LEARNS = [name for name in NAMES if any(p.requires_grad for p in make(name, takes_images(name)).parameters())]
#: Every policy with the numbers of cameras it can have: none, one and two.
CASES = [
    (name, cameras)
    for name in LEARNS
    for cameras in CAMERAS
    if (takes_images(name) or not cameras) and (cameras or "camera" not in (refusal(name, 0) or ""))
]
#: And with the most it can have, where the number is beside the point.
ONE_CASE = [max((case for case in CASES if case[0] == name), key=lambda case: case[1]) for name in LEARNS]
SAMPLING = [case for case in ONE_CASE if samples(policy_class(case[0]))]


def told(case: object) -> str:
    return "-".join(map(str, case)) if isinstance(case, tuple) else str(case)


every_folder = pytest.mark.parametrize("name", NAMES)
every_case = pytest.mark.parametrize("case", CASES, ids=told)
every_policy = pytest.mark.parametrize("case", ONE_CASE, ids=told)
every_sampler = pytest.mark.parametrize("case", SAMPLING, ids=told)


@every_folder
def test_a_policy_has_all_that_a_newcomer_looks_for(name):
    folder, cls = FOLDERS / name, policy_class(name)
    assert (folder / f"configuration_{name}.py").is_file()
    assert cls.config_class.__module__ == f"menura.policies.{name}.configuration_{name}"
    assert cls.config_class.model_type == f"menura_{name}"
    assert BUILT_IN["policy"][cls.__name__] == f"menura.policies.{name}.modeling_{name}:{cls.__name__}"
    assert yaml.safe_load((SECTIONS / f"{name}.yaml").read_text())["class"] == cls.__name__
    assert yaml.safe_load((SECTIONS / "tiny" / f"{name}.yaml").read_text())["class"] == cls.__name__
    missing = [p for p in config_parameters(cls.config_class) if f"{p}:" not in (cls.config_class.__doc__ or "")]
    assert missing == [], "arguments that the docstring does not explain"


@every_folder
def test_a_policy_imports_what_can_travel(name):
    import ast

    allowed = {"__future__", "torch", "transformers", "diffusers", "tokenizers", "numpy", *sys.stdlib_module_names}
    for file in (FOLDERS / name).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= allowed, file
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert (node.module or "").partition(".")[0] in allowed, (file, node.module)
            elif isinstance(node, ast.ImportFrom) and node.level > 1:
                assert (node.module or "").startswith("common."), (file, node.module)


@every_folder
def test_the_defaults_build(name):
    cls = policy_class(name)
    config = fill_config(cls.config_class, {}, features(2 if takes_images(name) else 0))
    with torch.device("meta"):
        assert sum(p.numel() for p in cls(config).parameters()) >= 0


@every_policy
def test_the_contract_is_kept(case):
    name, cameras = case
    cls = policy_class(name)
    results = check_policy(
        cls, args=tiny(name), features=features(cameras), image_encoder_dim=encoder_dim(name, cameras)
    )
    assert [(result.name, result.message) for result in results if not result.ok] == []


@every_case
def test_every_parameter_gets_a_gradient(case):
    name, cameras = case
    policy = make(name, cameras).train()
    for step in range(3):  # layers that start at zero hide those before them
        loss_of(policy, make_batch(policy, name, cameras, seed=step)).backward()
        with torch.no_grad():
            for p in policy.parameters():
                if p.grad is not None:
                    p -= 1e-2 * p.grad.sign()
    without = [n for n, p in policy.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)


@every_policy
def test_a_batch_of_padding_has_a_finite_loss(case):
    name, cameras = case
    policy = make(name, cameras)
    batch = make_batch(policy, name, cameras)
    batch["is_pad"][:] = True
    loss = loss_of(policy, batch)
    assert torch.isfinite(loss)
    if loss.requires_grad:
        loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)


@every_policy
def test_what_a_mask_says_is_not_there_has_no_influence(case):
    name, cameras = case
    policy = make(name, cameras).eval()
    batch = make_batch(policy, name, cameras)
    keys = Contract.of(type(policy)).keys
    masks = {"state_mask": STATE, "action_mask": ACTION, "image_mask": cameras}
    for mask, width in masks.items():
        if mask in keys and width:
            batch[mask] = torch.ones(4, width, dtype=torch.bool)
            batch[mask][:, -1] = width == 1
    assert "action_mask" in keys, "every policy says which actions count"
    assert "image_mask" in keys or not cameras
    assert "state_mask" in keys or "state" not in keys

    def answers(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        with torch.no_grad():
            return act(policy, observation(batch)), loss_of(policy, batch)

    actions, loss = answers(batch)
    changed = copy.deepcopy(batch)
    if "state_mask" in keys:
        changed["state"][..., -1] += 3.0
    if cameras > 1:
        changed["image"][..., -1, :, :, :] = 0.3
    other, _ = answers(changed)
    torch.testing.assert_close(other, actions, rtol=1e-4, atol=1e-5)
    changed["actions"][..., -1] += 3.0
    assert abs(float(answers(changed)[1] - loss)) <= 1e-4 * max(1.0, abs(float(loss)))


@every_policy
def test_eight_samples_are_learnt_by_heart(case):
    name, cameras = case
    policy = make(name, cameras).train()
    batch = make_batch(policy, name, cameras, 8)
    needs = Needs.of(policy.config)
    if needs.action_offsets is not None:  # what is predicted before now, or past the chunk, is not answered
        present = [i for i, offset in enumerate(needs.action_offsets) if 0 <= offset < needs.chunk_size]
        wanted, padded = batch["actions"][:, present], batch["is_pad"][:, present]
    else:
        wanted, padded = batch["actions"][:, None], batch["is_pad"][:, None]
    obs = observation(batch)

    def error() -> float:
        """How far the policy is from the demonstrations as it acts, whatever else its loss holds."""
        answer = act(policy, obs)
        policy.train()
        answer = answer[:, None] if answer.dim() == 2 else answer
        return float((answer - wanted).abs().mean(dim=-1)[~padded].mean())

    before = error()
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    for step in range(600):
        optimizer.zero_grad()
        loss_of(policy, batch).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 19 and error() < 0.5 * before:
            return
    assert error() < 0.5 * before


@every_policy
def test_saved_and_loaded_it_answers_the_same(case, tmp_path):
    name, cameras = case
    policy = make(name, cameras).eval()
    policy.save_pretrained(tmp_path)
    again = type(policy).from_pretrained(tmp_path).eval()
    assert Needs.of(again.config) == Needs.of(policy.config)
    obs = observation(make_batch(policy, name, cameras))
    assert torch.equal(act(again, obs), act(policy, obs))
    frozen = {n for n, p in policy.named_parameters() if not p.requires_grad}
    assert {n for n, p in again.named_parameters() if not p.requires_grad} == frozen


@every_policy
def test_spread_by_a_device_map_it_answers_the_same(case, tmp_path):
    """Half of it lies on the disk, from where each module fetches its weights when it is called."""
    name, cameras = case
    policy = make(name, cameras).eval()
    policy.save_pretrained(tmp_path, save_original_format=False)
    half = sum(tensor.nbytes for tensor in policy.state_dict().values()) // 2
    spread = type(policy).from_pretrained(
        tmp_path, device_map="auto", max_memory={"cpu": half}, offload_folder=tmp_path / "offloaded"
    )
    assert "disk" in spread.hf_device_map.values()
    obs = observation(make_batch(policy, name, cameras))
    assert torch.equal(act(spread, obs), act(policy, obs))


@every_policy
def test_in_eight_bits_it_answers_alike(case):
    pytest.importorskip("bitsandbytes")
    name, cameras = case
    policy = make(name, cameras).eval()
    batch = make_batch(policy, name, cameras)
    smaller = quantized(policy, {"load_in_8bit": True}, "training.quantization")
    assert any("8bit" in type(module).__name__ for module in smaller.modules())
    assert torch.isfinite(loss_of(smaller, batch))
    expected, answer = act(policy, observation(batch)), act(smaller, observation(batch))
    close = (answer - expected).abs() <= 0.1 * expected.abs().max().clamp(min=1)
    assert close.float().mean() > 0.8


@every_case
def test_a_row_does_not_depend_on_its_batch(case):
    name, cameras = case
    policy = make(name, cameras).eval()
    obs = observation(make_batch(policy, name, cameras))
    together = act(policy, obs, seeds=[3, 4, 5, 6])
    alone = act(policy, row_of(obs, 1), seeds=[4])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


@every_sampler
def test_a_sample_belongs_to_its_generator(case):
    name, cameras = case
    policy = make(name, cameras).eval()
    obs = observation(make_batch(policy, name, cameras, 2))
    one, other = act(policy, obs, seeds=[3, 4]), act(policy, obs, seeds=[3, 5])
    assert torch.equal(one[0], other[0])
    if hasattr(policy, "noise_shape"):
        noise = torch.randn(2, *policy.noise_shape)
        assert torch.equal(policy.select_action(obs, noise=noise), policy.select_action(obs, noise=noise))
        assert not torch.equal(policy.select_action(obs, noise=noise), policy.select_action(obs, noise=-noise))


@pytest.mark.parametrize("case", [case for case in SAMPLING if hasattr(policy_class(case[0]), "noise_shape")], ids=told)
def test_the_observation_is_encoded_once_a_chunk(case, monkeypatch):
    name, cameras = case
    policy = make(name, cameras).eval()
    calls = {"condition": 0, "denoise": 0}
    for method in calls:
        original = getattr(policy, method)

        def counted(*args: Any, method: str = method, original: Any = original, **kwargs: Any) -> Any:
            calls[method] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(policy, method, counted)
    act(policy, observation(make_batch(policy, name, cameras)))
    assert calls["condition"] == 1
    assert calls["denoise"] >= 1


@every_policy
@pytest.mark.parametrize("chunk_size", [1, 5])
def test_the_chunk_is_as_long_as_the_config_says(case, chunk_size):
    name, cameras = case
    if "chunk_size" not in config_parameters(policy_class(name).config_class):
        pytest.skip(f"{name} predicts no chunk")
    args = {"chunk_size": chunk_size, "n_action_steps": 1}
    if (why := refusal(name, cameras, **args)) is not None:
        assert "chunk_size" in why  # the horizon of a U-Net is a multiple of what it halves
        return
    policy = make(name, cameras, **args)
    batch = make_batch(policy, name, cameras)
    loss_of(policy, batch).backward()
    needs = Needs.of(policy.config)
    steps = sum(0 <= offset < needs.chunk_size for offset in needs.action_offsets)
    assert act(policy, observation(batch)).shape == (4, steps, ACTION)


@pytest.mark.parametrize(
    "case", [c for c in ONE_CASE if "n_obs_steps" in config_parameters(policy_class(c[0]).config_class)], ids=told
)
def test_several_observation_steps(case):
    name, cameras = case
    policy = make(name, cameras, n_obs_steps=3)
    batch = make_batch(policy, name, cameras)
    loss_of(policy, batch).backward()
    assert act(policy, observation(batch)).shape[::2] == (4, ACTION)


@pytest.mark.parametrize("case", [case for case in ONE_CASE if case[1]], ids=told)
def test_another_image_size(case):
    name, cameras = case
    known = config_parameters(policy_class(name).config_class)
    if "image_size" not in known or "image_size" not in tiny(name):
        pytest.skip(f"{name} takes its image size from its backbone")
    side = tiny(name)["image_size"]
    height, width = side if isinstance(side, list) else (side, side)
    larger = [2 * height, 2 * width]
    if (why := refusal(name, cameras, image_size=larger)) is not None:
        assert "image_size" in why
        return
    policy = make(name, cameras, image_size=larger)
    batch = make_batch(policy, name, cameras)
    loss_of(policy, batch).backward()
    assert act(policy, observation(batch)).shape[0] == 4


@every_policy
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bfloat16_answers_alike(case, how):
    name, cameras = case
    policy = make(name, cameras).eval()
    obs = observation(make_batch(policy, name, cameras))
    expected = act(policy, obs)
    if how == "weights":  # as in transformers, what goes into a model has its dtype
        policy.to(torch.bfloat16)
        obs = {k: v.to(torch.bfloat16) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in obs.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        answer = act(policy, obs).float()
    assert torch.isfinite(answer).all()
    # A token that falls to the other side of a bin moves an action by more than rounding does: most must agree.
    close = (answer - expected).abs() <= 0.1 * expected.abs().max().clamp(min=1)
    assert close.float().mean() > 0.8


def compiled_alike(name: str, cameras: int, backend: str) -> None:
    policy = make(name, cameras).eval()
    batch = Contract.of(type(policy)).select(make_batch(policy, name, cameras, 2))
    torch.manual_seed(1)
    expected = loss_and_logs(policy(**batch))[0]
    torch._dynamo.reset()
    compiled = torch.compile(policy, backend=backend)
    torch.manual_seed(1)
    torch.testing.assert_close(loss_and_logs(compiled(**batch))[0], expected, rtol=1e-4, atol=1e-5)


@every_policy
def test_captured_by_the_compiler_it_gives_the_same(case):
    """Quick: what a policy's code can do wrong shows when its graphs are captured."""
    compiled_alike(*case, backend="eager")


@pytest.mark.slow
@every_policy
def test_compiled_it_gives_the_same(case):
    with inductor.patch(fallback_random=True):  # else it draws other noise than PyTorch does by the same seed
        compiled_alike(*case, backend="inductor")


@every_policy
def test_a_seed_repeats_training_exactly(case):
    name, cameras = case

    def train() -> Tensor:
        torch.manual_seed(3)
        policy = make(name, cameras).train()
        batch = make_batch(policy, name, cameras)
        optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            loss = loss_of(policy, batch)
            loss.backward()
            optimizer.step()
        return loss

    assert torch.equal(train(), train())


LOAD_WITHOUT_MENURA = """
import inspect, json, sys
sys.modules["menura"] = None  # any import of it fails
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
for name in json.loads(sys.argv[1]):
    policy = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
    obs = load_file(f"{name}/obs.safetensors")
    obs["task"] = json.load(open(f"{name}/task.json"))
    extra = {}
    if "generator" in inspect.signature(policy.select_action).parameters:
        extra["generator"] = [torch.Generator().manual_seed(s) for s in range(len(obs["task"]))]
    with torch.no_grad():
        answer = policy.select_action(obs, **extra)
    save_file({"actions": answer.contiguous()}, f"{name}/answer.safetensors")
"""


def test_every_policy_loads_in_a_fresh_process_without_menura(tmp_path):
    expected = {}
    for name, cameras in ONE_CASE:
        policy = make(name, cameras).eval()
        directory = tmp_path / name
        save_policy(policy, directory)
        # A training that goes on reads them by these names.
        assert load_file(directory / "model.safetensors").keys() <= policy.state_dict().keys()
        obs = observation(make_batch(policy, name, cameras))
        save_file({k: v.contiguous() for k, v in obs.items() if isinstance(v, Tensor)}, directory / "obs.safetensors")
        (directory / "task.json").write_text(json.dumps(obs["task"]))
        expected[str(directory)] = act(policy, obs)
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", LOAD_WITHOUT_MENURA, json.dumps(list(expected))]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, actions in expected.items():
        answer = load_file(f"{name}/answer.safetensors")["actions"]
        torch.testing.assert_close(answer, actions, rtol=0, atol=0, msg=name)
