"""Adapters: only they train, they are saved as adapters, and everything else is as without them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from torch import nn
from transformers import AutoModel

import menura
from menura import components
from menura.checkpoint import load_checkpoint, merge_checkpoint
from menura.checkpoint.adapters import base_weights, has_adapters, merge_adapters
from menura.errors import CheckpointError, ConfigError
from menura.meta_policy import MetaPolicy
from menura.policies.act.modeling_act import ACTPolicy
from menura.policies.checking.samples import default_encoder_dim, default_features, make_batch
from menura.policies.contract import Contract, build_policy
from menura.training.finetuning import add_adapters, linear_layers
from menura.training.run import TrainResult, train

pytest.importorskip("peft")

TINY = Path(menura.__file__).parent / "configs" / "policy" / "tiny"

LORA: dict[str, Any] = {"type": "lora", "r": 4, "lora_alpha": 8}


def reach(out: str, **options: Any) -> TrainResult:
    return train("reach", output_dir=out, overrides=overrides(options))


def overrides(options: dict[str, Any]) -> list[str]:
    return [f"--{key.replace('__', '.')}={json.dumps(value)}" for key, value in options.items()]


def weights(path: Path | str) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def observation() -> dict[str, Any]:
    return {"state": np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)}


@pytest.mark.parametrize("dora", [False, True])
def test_a_run_with_adapters(project: Path, dora: bool, capsys: pytest.CaptureFixture[str]) -> None:
    reach("out", training__peft={**LORA, "use_dora": dora})
    assert "parameters learn" in capsys.readouterr().out
    for directory in (Path("out"), Path("out/checkpoint-24")):
        files = {path.name for path in directory.iterdir()}
        assert {"adapter_model.safetensors", "adapter_config.json", "config.json", "base", "menura.json"} <= files
        assert "model.safetensors" not in files
    adapters = weights("out/adapter_model.safetensors")
    parts = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if dora else set())
    assert {name.split(".")[-2] if "magnitude" not in name else "lora_magnitude_vector" for name in adapters} == parts
    assert json.loads(Path("out/adapter_config.json").read_text())["r"] == 4
    assert ("DoRA" if dora else "LoRA") + " of rank 4" in Path("out/README.md").read_text()
    meta = MetaPolicy.from_pretrained(Path("out"), project=project)  # replays golden
    assert type(meta.policy).__name__ == "ReachPolicy"
    assert has_adapters(meta.policy)
    assert {name for name, p in meta.policy.named_parameters() if p.requires_grad} == {
        name for name, _ in meta.policy.named_parameters() if "lora" in name
    }


def test_the_base_stays_and_peft_reads_the_run(project: Path) -> None:
    reach("out", training__peft=LORA)
    first, last = weights("out/checkpoint-24/base/model.safetensors"), weights("out/base/model.safetensors")
    assert all(torch.equal(last[name], value) for name, value in first.items())
    script = (
        "import sys; sys.modules['menura'] = None\n"
        "import torch, numpy as np; from transformers import AutoModel; from peft import PeftModel\n"
        "base = AutoModel.from_pretrained('out/base', trust_remote_code=True)\n"
        "policy = PeftModel.from_pretrained(base, 'out').eval()\n"
        "state = torch.linspace(-1, 1, 20).reshape(5, 4)\n"
        "torch.save(policy.base_model.model.select_action({'state': state}), 'answer')"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    policy = load_checkpoint("out", project=project).policy
    with torch.inference_mode():
        answer = policy.select_action({"state": torch.linspace(-1, 1, 20).reshape(5, 4)})
    assert torch.equal(torch.load("answer"), answer)


@pytest.mark.parametrize("options", [{}, {"training__ema": 0.9}])
@pytest.mark.slow
def test_killed_and_resumed_ends_the_same(
    project: Path, options: dict[str, Any], train_in_child: Callable[..., int], tmp_path: Path
) -> None:
    given = {"training__peft": {**LORA, "modules_to_save": ["net.3"]}, "training__max_steps": 20, **options}
    reach("whole", **given)
    settings = {"task": "reach", "output_dir": "killed", "overrides": overrides(given)}
    place = {"directory": str(project), "cache": str(tmp_path / "cache")}
    assert train_in_child(**place, kill_at=15, **settings) == -9
    reach("killed", **given)
    for name in ("adapter_model.safetensors", "base/model.safetensors"):
        mine, theirs = weights(f"whole/{name}"), weights(f"killed/{name}")
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(theirs[key], value) for key, value in mine.items())


def test_merged_it_is_an_ordinary_checkpoint(project: Path) -> None:
    reach("out", training__peft={**LORA, "modules_to_save": ["net.3"]}, training__learning_rate=0.1)
    merged = merge_checkpoint("out", "merged", project=project)
    assert (merged / "model.safetensors").is_file()
    assert not (merged / "adapter_config.json").exists()
    a, b = (MetaPolicy.from_pretrained(Path(each), project=project) for each in ("out", "merged"))
    np.testing.assert_allclose(a.predict(observation()), b.predict(observation()), atol=1e-5)
    plain = AutoModel.from_pretrained("merged", trust_remote_code=True)
    assert plain.state_dict().keys() == b.policy.state_dict().keys()
    with pytest.raises(CheckpointError, match="merged: expected adapters to merge, got a checkpoint without"):
        merge_checkpoint("merged", "again", project=project)


def test_bf16_and_gradient_checkpointing(project: Path) -> None:
    args = {
        "chunk_size": 4, "n_action_steps": 2, "hidden_size": 32, "n_heads": 2, "feedforward_size": 32,
        "n_encoder_layers": 1, "latent_dim": 4,
    }  # fmt: skip
    options = {
        "policy": {"class": "ACTPolicy", "args": args}, "training__bf16": True, "training__max_steps": 3,
        "training__gradient_checkpointing": True, "training__peft": LORA, "training__learning_rate": 0.05,
    }  # fmt: skip
    reach("out", **options)
    adapters = weights("out/adapter_model.safetensors")
    moved = [name for name, value in adapters.items() if "lora_B" in name and value.abs().sum() > 0]
    assert len(moved) == sum("lora_B" in name for name in adapters)
    assert any(name.endswith("encoder.0.attention.q_proj.lora_B.weight") for name in moved)
    assert {value.dtype for value in adapters.values()} == {torch.float32}
    load_checkpoint("out", project=project)


def learning(policy: Any) -> set[str]:
    return {name for name, parameter in policy.named_parameters() if parameter.requires_grad}


def act() -> ACTPolicy:
    torch.manual_seed(0)
    args = {
        "hidden_size": 32, "n_heads": 2, "feedforward_size": 32, "n_encoder_layers": 1, "latent_dim": 4,
        "chunk_size": 4, "n_action_steps": 2, "state_dim": 3, "action_dim": 2, "camera_names": ["a"],
        "image_size": [32, 32], "backbone_widths": [16, 32], "backbone_depths": [1, 1],
    }  # fmt: skip
    return build_policy(ACTPolicy, args)


def test_all_linear_is_every_linear_layer_that_is_called() -> None:
    policy = act()
    linear = linear_layers(policy)
    assert "action_head" in linear
    assert "encoder.0.attention.q_proj" in linear
    attention = nn.TransformerEncoderLayer(8, 2, 8)
    assert linear_layers(attention) == ["linear1", "linear2"]
    assert "action_head" not in linear_layers(policy, leave_out=["action_head"])
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    add_adapters(policy, {**LORA, "modules_to_save": ["queries"]}, learning(policy), "here")
    after = base_weights(policy)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    batch = {
        "state": torch.randn(2, 3), "image": torch.randn(2, 1, 3, 32, 32), "actions": torch.randn(2, 4, 2),
        "is_pad": torch.zeros(2, 4, dtype=torch.bool),
    }  # fmt: skip
    policy.train()
    policy(**batch)["loss"].backward()
    assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)
    assert "queries.modules_to_save.default.weight" in learning(policy)


def test_what_the_policy_freezes_itself_gets_no_adapters() -> None:
    policy = act()
    policy.encoder.requires_grad_(False)
    add_adapters(policy, LORA, learning(policy), "here")
    assert not [name for name in learning(policy) if name.startswith("encoder.")]
    policy = act()
    with pytest.raises(ConfigError, match=r"expected linear layers that learn in ACTPolicy, got none"):
        add_adapters(policy, LORA, (), "here")


def samples(name: str) -> tuple[Any, dict[str, Any]]:
    """A built-in policy as its tiny section makes it, and a batch for it."""
    section = yaml.safe_load((TINY / f"{name}.yaml").read_text())
    policy_class = components.load("policy", section["class"], Path())
    contract, args = Contract.of(policy_class), section.get("args") or {}
    features = default_features(policy_class.config_class, contract, args)
    dim = default_encoder_dim(policy_class.config_class, contract, features, args)
    policy = build_policy(policy_class, args, features, image_encoder_dim=dim)
    return policy, contract.select(make_batch(policy.config, features, dim, 2, 0))


@pytest.mark.parametrize("name", sorted(path.stem for path in TINY.glob("*.yaml")))
def test_adapters_in_every_policy(name: str) -> None:
    torch.manual_seed(0)
    policy, batch = samples(name)
    names = learning(policy)
    if not names:
        pytest.skip("nothing in it learns")
    tied = getattr(policy, "all_tied_weights_keys", {})
    before = {key: value.clone() for key, value in policy.state_dict().items() if key not in tied}
    add_adapters(policy, LORA, names, "here")
    base = base_weights(policy)
    assert before.keys() == base.keys()
    assert all(torch.equal(base[key], value) for key, value in before.items())
    policy.train()
    policy(**batch)["loss"].backward()
    assert not [key for key, p in policy.named_parameters() if p.requires_grad and p.grad is None]
    merge_adapters(policy)
    assert policy.state_dict().keys() >= before.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "ia3"}, "training.peft: expected type: lora (with use_dora: true, DoRA), got 'ia3'"),
        ({**LORA, "lora_alfa": 8}, "lora_alfa: no such field of peft.LoraConfig; did you mean lora_alpha?"),
        ({**LORA, "r": "4"}, "r: expected a whole number, got '4'"),
        ({**LORA, "init_lora_weights": "pissa"}, "init_lora_weights: expected true, false, gaussian or orthogonal"),
        (
            {**LORA, "target_modules": ["net.9"]},
            "expected names of modules of ReachPolicy, got 'net.9'; did you mean net.3?",
        ),
        ({**LORA, "layer_replication": [[0, 1]]}, "layer_replication: "),
    ],
)
def test_what_is_refused(project: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        reach("out", training__peft=given)


def test_attention_layers_as_a_whole_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected no torch\.nn\.MultiheadAttention"):
        add_adapters(nn.TransformerEncoderLayer(8, 2, 8), {**LORA, "target_modules": ["self_attn"]}, (), "here")


def test_adapters_of_other_code_are_refused(project: Path) -> None:
    reach("out", training__peft=LORA, training__max_steps=2)
    adapters = weights("out/adapter_model.safetensors")
    adapters.pop(next(iter(adapters)))
    from menura.checkpoint.adapters import attach_adapters

    safetensors.torch.save_file(adapters, "out/adapter_model.safetensors")
    policy = load_base_of("out", project)
    with pytest.raises(CheckpointError, match="expected the adapters of ReachPolicy, differing in"):
        attach_adapters(policy, Path("out"))


def load_base_of(run: str, project: Path) -> Any:
    return AutoModel.from_pretrained(f"{run}/base", trust_remote_code=True)
