"""Vision models of transformers as image encoders; all of them tiny, built and not downloaded."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from menura.errors import ContractError
from menura.policies.contract import Contract, build_policy, loss_and_logs, observation
from menura.policies.image_encoder import VisionEncoder

RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
}
TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 16,
}


TEXT = {**{k: v for k, v in TRANSFORMER.items() if k not in ("image_size", "patch_size")}, "vocab_size": 16}
CLIP = {"model_type": "clip", "text_config": TEXT, "vision_config": TRANSFORMER}
MODELS = [
    (RESNET, "mean"),
    (RESNET, "pooler"),
    ({"model_type": "vit", **TRANSFORMER}, "mean"),
    ({"model_type": "vit", **TRANSFORMER}, "first"),
    ({"model_type": "dinov2", **{k: v for k, v in TRANSFORMER.items() if k != "intermediate_size"}}, "first"),
    (CLIP, "pooler"),
    ({"model_type": "clip_vision_model", **TRANSFORMER}, "pooler"),
    ({"model_type": "siglip_vision_model", **TRANSFORMER}, "mean"),
]


@pytest.mark.parametrize(("model", "pooling"), MODELS)
def test_its_own_arguments_rebuild_it(model, pooling):
    encoder = VisionEncoder(model, pooling=pooling, mean=[0.1, 0.2, 0.3])
    again = VisionEncoder(**json.loads(json.dumps(encoder.rebuild_args())))
    again.load_state_dict(encoder.state_dict())
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(image), encoder(image))


@pytest.mark.parametrize(("model", "pooling"), MODELS)
def test_any_vision_model_serves(model, pooling):
    encoder = VisionEncoder(model, pooling=pooling)
    features = encoder(torch.rand(3, 3, 40, 56))
    assert features.shape == (3, encoder.feature_dim) == (3, 16)
    assert features.dtype == torch.float32


def test_it_is_frozen_and_stays_in_evaluation():
    encoder = VisionEncoder(RESNET).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    image = torch.rand(2, 3, 32, 32, requires_grad=True)
    assert not encoder(image).requires_grad
    assert torch.equal(encoder(image), encoder(image))


def test_mean_and_pooler_of_a_resnet_are_the_same():
    torch.manual_seed(0)
    mean = VisionEncoder(RESNET, pooling="mean")
    pooler = VisionEncoder(RESNET, pooling="pooler")
    pooler.load_state_dict(mean.state_dict())
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(mean(image), pooler(image))


def test_a_saved_model_brings_its_own_colours(tmp_path):
    settings = {k: v for k, v in RESNET.items() if k != "model_type"}
    ResNetModel(ResNetConfig(**settings)).save_pretrained(tmp_path)
    assert VisionEncoder(str(tmp_path)).mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1] * 3})
    )
    encoder = VisionEncoder(str(tmp_path))
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder.std.flatten().tolist() == [1, 1, 1]
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(
        encoder(image), encoder.model((image - encoder.mean) / encoder.std).pooler_output.flatten(1)
    )


def test_the_guides_policy_learns_from_its_features(guide_policy, features):
    encoder = VisionEncoder(RESNET)
    policy = build_policy(
        guide_policy, {"hidden_size": 16, "num_layers": 2}, features, image_encoder_dim=encoder.feature_dim
    )
    assert policy.config.image_feature_dim == 32
    slot = encoder(torch.rand(2 * 2, 3, 32, 32)).reshape(2, -1)  # two cameras, concatenated in order
    batch = {"state": torch.randn(2, 5), "image_features": slot, "actions": torch.randn(2, 3)}
    batch["is_pad"] = torch.zeros(2, dtype=torch.bool)
    loss, _ = loss_and_logs(policy(**Contract.of(guide_policy).select(batch)))
    loss.backward()
    assert policy.select_action(observation(batch)).shape == (2, 3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"model": {"depths": [1]}},
            "VisionEncoder.model: expected a Hub id, a directory or a mapping with model_type, got {'depths': [1]}. "
            "Add for example `model_type: resnet`.",
        ),
        (
            {"model": {"model_type": "resnet", "hiden_sizes": [16]}},
            "VisionEncoder.model: expected settings of ResNetConfig, got 'hiden_sizes'; did you mean hidden_sizes?",
        ),
        (
            {"model": RESNET, "pooling": "avg"},
            "VisionEncoder.pooling: expected one of mean, first, pooler, got 'avg'",
        ),
        (
            {"model": {"model_type": "vit_mae", **TRANSFORMER}, "pooling": "pooler"},
            "VisionEncoder: expected ViTMAEModel to have a pooler, got none. Use `pooling: mean` or `first`.",
        ),
    ],
)
def test_wrong_settings_are_refused(args, message):
    with pytest.raises(ContractError) as error:
        VisionEncoder(**args)
    assert str(error.value) == message
