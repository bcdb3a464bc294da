"""Directories laid out as those of OpenVLA and OpenVLA-OFT are read whole, with their statistics."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

import menura
from menura.conversion import is_foreign, load_foreign
from menura.errors import CheckpointError, StatisticsError
from menura.meta_policy import MetaPolicy
from menura.policies.openvla import configuration_openvla
from menura.policies.openvla.modeling_openvla import OpenVLAPolicy, OpenVLAPolicyConfig

TINY = yaml.safe_load((Path(menura.__file__).parent / "configs/policy/tiny/openvla.yaml").read_text())["args"]
BOUNDS = {"q01": [-2.0, -1.0, 0.0], "q99": [2.0, 3.0, 0.0], "min": [-3.0, -3.0, -3.0], "max": [3.0, 3.0, 3.0]}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """The sizes of the tests in the place of those that an original has by its name."""
    monkeypatch.setattr(configuration_openvla, "DINOV2_LARGE", TINY["dinov2_config"])
    monkeypatch.setattr(configuration_openvla, "SIGLIP_SO400M", TINY["siglip_config"])
    torch.manual_seed(0)
    torch.set_num_threads(1)


def timm(prefix: str, state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """An encoder of ours as timm names it, with one layer more, a norm, and queries, keys and values in one."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        for old, new in names.items():
            name = name.replace(old, new)
        found[name] = value
    for layer in ("weight", "bias"):
        found[f"blocks.0.attn.qkv.{layer}"] = torch.cat([found.pop(f"blocks.0.attn.{x}.{layer}") for x in "qkv"])
    found |= {name.replace("blocks.0", "blocks.1"): value for name, value in found.items() if "blocks.0" in name}
    found |= {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    return {prefix + name: value for name, value in found.items()}


def write(directory: Path, policy: OpenVLAPolicy, parts: dict[str, dict[str, Tensor]] | None = None) -> Path:
    """The policy as the original would have it."""
    attention = {f"attention.{x}_proj": f"attn.{x}" for x in "qkv"} | {"attention.o_proj": "attn.proj"}
    own = {**attention, "encoder.layer.": "blocks.", "embeddings.register_tokens": "reg_token"}
    own |= {f"layer_scale{i}.lambda1": f"ls{i}.scale_factor" for i in (1, 2)}
    own |= {"embeddings.patch_embeddings.projection": "patch_embed.proj", "embeddings.position_embeddings": "pos_embed"}
    own |= {"embeddings.cls_token": "cls_token"}
    dinov2 = timm("vision_backbone.featurizer.", policy.vision.dinov2.state_dict(), own)
    # The class token has no position of its own there.
    dinov2["vision_backbone.featurizer.cls_token"] = policy.vision.dinov2.embeddings.cls_token.detach()
    dinov2["vision_backbone.featurizer.pos_embed"] = dinov2["vision_backbone.featurizer.pos_embed"][:, 1:]
    own = {f"self_attn.{x}_proj": f"attn.{x}" for x in "qkv"} | {"self_attn.out_proj": "attn.proj"}
    own |= {"encoder.layers.": "blocks.", "layer_norm": "norm", "embeddings.patch_embedding": "patch_embed.proj"}
    own |= {"embeddings.position_embedding.weight": "pos_embed"}
    siglip = timm("vision_backbone.fused_featurizer.", policy.vision.siglip.state_dict(), own)
    siglip["vision_backbone.fused_featurizer.pos_embed"] = siglip["vision_backbone.fused_featurizer.pos_embed"][None]
    tensors = {
        **dinov2,
        **siglip,
        **{f"projector.{name}": value for name, value in policy.projector.state_dict().items()},
        **{f"language_model.model.{name}": value for name, value in policy.language_model.state_dict().items()},
        "language_model.lm_head.weight": torch.randn(640, 64),
    }
    if policy.lm_head is not None:
        tensors["language_model.lm_head.weight"] = policy.lm_head.weight
    directory.mkdir()
    save_file({name: value.detach().clone() for name, value in tensors.items()}, directory / "model.safetensors")
    statistics = {"action": {**BOUNDS, "mask": [True, True, False]}, "proprio": {k: v[:2] for k, v in BOUNDS.items()}}
    config = {
        "model_type": "openvla",
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        "text_config": {**TINY["language_config"], "pad_token_id": 0, "rms_norm_eps": 1e-6},
        "pad_to_multiple_of": 0,
        "norm_stats": {"bridge": statistics, "fractal": statistics},
    }
    (directory / "config.json").write_text(json.dumps(config))
    for name, part in (parts or {}).items():
        torch.save({f"module.{key}": value for key, value in part.items()}, directory / f"{name}--100_checkpoint.pt")
    return directory


def make(**args: Any) -> OpenVLAPolicy:
    args = {**TINY, "use_state": False, "state_dim": 2, "action_dim": 3, "camera_names": ["image"], **args}
    policy = OpenVLAPolicy(OpenVLAPolicyConfig(**args)).eval()
    with torch.no_grad():
        policy.vision.dinov2.embeddings.position_embeddings[:, :1] = 0
    return policy


def observation() -> dict[str, Any]:
    images = {"image": np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)}
    return {"images": images, "task": ["Pick it up", "open the door"]}


@pytest.fixture
def load(monkeypatch):
    """Reads a directory, with bytes for text, and the size of the tests' images."""
    init = OpenVLAPolicyConfig.__init__

    def small(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **{"image_size": [28, 28], **kwargs, "tokenizer": "bytes"})

    def loaded(directory: Path, **args: Any):
        with monkeypatch.context() as patch:
            small.__signature__ = inspect.signature(init)  # type: ignore[attr-defined]
            patch.setattr(OpenVLAPolicyConfig, "__init__", small)
            return load_foreign(directory, args=args)

    return loaded


def test_tokens_come_back_in_the_units_of_the_data_set(tmp_path, load):
    policy = make(chunk_size=1, n_action_steps=1)
    directory = write(tmp_path / "openvla-7b", policy)
    assert is_foreign(directory)
    foreign = load(directory)
    meta = MetaPolicy(foreign.policy, foreign.processor, dataset="bridge")
    obs = observation()
    expected = policy.select_action(meta.inputs(obs))
    torch.testing.assert_close(meta.infer(meta.inputs(obs)), expected)
    low, high = np.array(BOUNDS["q01"]), np.array(BOUNDS["q99"])
    physical = 0.5 * (expected.numpy() + 1) * (high - low) + low
    physical[..., 2] = expected.numpy()[..., 2]  # what the mask leaves as it is
    np.testing.assert_allclose(meta.predict(obs), physical, atol=1e-5)
    assert any("vision.dinov2.encoder.layer.1" in note for note in foreign.notes)


@pytest.mark.parametrize("head", ["l1", "diffusion"])
def test_the_parts_of_oft_are_read(head, tmp_path, load):
    policy = make(head=head, chunk_size=2, n_action_steps=2, use_state=True, n_diffusion_steps=50)
    names = {"norm_in": "layer_norm1", "fc_in": "fc1", "norm_out": "layer_norm2", "fc_out": "fc2"}
    names |= {f"blocks.{i}": f"mlp_resnet_blocks.{i}.ffn" for i in (0, 1)}
    prefix = "model." if head == "l1" else "noise_predictor.mlp_resnet."
    action_head = {}
    for name, value in policy.action_head.state_dict().items():
        old = next(old for old in names if name.startswith(old))
        action_head[prefix + names[old] + name.removeprefix(old)] = value
    parts = {"action_head": action_head, "proprio_projector": dict(policy.state_projector.state_dict())}
    if head == "diffusion":
        parts["noisy_action_projector"] = dict(policy.noise_projector.state_dict())
    foreign = load(write(tmp_path / "oft", policy, parts), chunk_size=2, bounds=["min", "max"])
    meta = MetaPolicy(foreign.policy, foreign.processor, dataset="fractal")
    obs = {**observation(), "state": np.array([[0.0, 1.5], [-3.0, 3.0]], dtype=np.float32)}
    inputs = meta.inputs(obs)
    torch.testing.assert_close(inputs["state"], torch.tensor([[0.0, 0.5], [-1.0, 1.0]]))
    noise = {"noise": torch.randn(2, 2, 3)} if head == "diffusion" else {}
    foreign.policy.config.n_inference_steps = policy.config.n_inference_steps = 3
    torch.testing.assert_close(meta.infer(inputs, **noise), policy.select_action(inputs, **noise))


def test_what_menura_does_not_have_is_refused(tmp_path, load):
    directory = write(tmp_path / "openvla", make())
    with pytest.raises(CheckpointError, match=r"did you mean camera_names"):
        load(directory, camera_name=["top"])
    (directory / "vision_backbone--100_checkpoint.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="without FiLM"):
        load(directory)
    file = directory / "config.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "norm_stats": None}))
    with pytest.raises(StatisticsError, match="norm_stats"):
        load(directory)
    file.write_text(json.dumps({**data, "vision_backbone_id": "siglip-vit-so400m"}))
    with pytest.raises(CheckpointError, match="dinosiglip"):
        load(directory)
