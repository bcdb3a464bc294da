"""CNNMLPPolicy: its size, and where its encoder looks."""

from __future__ import annotations

import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from menura.errors import ConfigError
from menura.policies.check import check_policy
from menura.policies.cnn_mlp.configuration_cnn_mlp import CNNMLPPolicyConfig
from menura.policies.cnn_mlp.modeling_cnn_mlp import CNNMLPPolicy, spatial_softmax
from menura.policies.contract import fill_config


def test_it_is_small_enough_for_a_cpu():
    policy = CNNMLPPolicy(CNNMLPPolicyConfig(camera_names=["corner"]))
    assert 110_000 < sum(p.numel() for p in policy.parameters()) < 116_000


def test_a_bright_pixel_is_where_the_spatial_softmax_points():
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 0, 8] = 100.0  # top right
    maps[0, 1, 4, 4] = 100.0  # bottom, in the middle
    points = spatial_softmax(maps.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(points, torch.tensor([[1.0, -1.0, 0.0, 1.0]]))


def test_the_spatial_softmax_is_an_expectation():
    maps = torch.randn(2, 3, 4, 6)
    points = spatial_softmax(maps).reshape(2, 3, 2)
    for n in range(2):
        for c in range(3):
            weights = torch.exp(maps[n, c]) / torch.exp(maps[n, c]).sum()
            x = sum(weights[i, j] * (2 * j / 5 - 1) for i in range(4) for j in range(6))
            y = sum(weights[i, j] * (2 * i / 3 - 1) for i in range(4) for j in range(6))
            torch.testing.assert_close(points[n, c], torch.stack((x, y)))


def test_cameras_keep_their_order():
    policy = CNNMLPPolicy(CNNMLPPolicyConfig(camera_names=["a", "b"])).eval()
    state, image = torch.randn(2, 4), torch.rand(2, 2, 3, 84, 84)
    obs, swapped = {"state": state, "image": image}, {"state": state, "image": image.flip(1)}
    assert not torch.allclose(policy.select_action(obs), policy.select_action(swapped))


def test_missing_inputs_are_said():
    policy = CNNMLPPolicy(CNNMLPPolicyConfig(camera_names=["a"]))
    with pytest.raises(ValueError, match=r"expected images of \['a'\], got none"):
        policy(state=torch.zeros(1, 4))
    with pytest.raises(ValueError, match="expected a state of width 4, got none"):
        policy(image=torch.zeros(1, 1, 3, 84, 84))


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="expected channels to be a multiple of 8, got 12"):
        fill_config(CNNMLPPolicyConfig, {"channels": 12})


RESNET = {"encoder": "resnet", "backbone_widths": [16, 32], "backbone_depths": [1, 1], "image_size": [32, 32]}


def test_it_keeps_the_contract_with_a_resnet():
    results = check_policy("CNNMLPPolicy", args={**RESNET, "channels": 8, "hidden_size": 32})
    assert [result.message for result in results if not result.ok] == []


def test_a_pretrained_resnet_stays_what_it_was(tmp_path):
    settings = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
    pretrained = ResNetModel(ResNetConfig(**settings))
    pretrained.save_pretrained(tmp_path)
    policy = CNNMLPPolicy(CNNMLPPolicyConfig(camera_names=["a"], pretrained_backbone=str(tmp_path), **RESNET))
    own = policy.encoder[0].resnet.state_dict()
    assert all(torch.equal(own[name], value) for name, value in pretrained.state_dict().items())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"encoder": "vit"}, "expected encoder to be one of small, resnet, got 'vit'"),
        ({"backbone_norm": "batch"}, "expected backbone_norm to be group or frozen_batch, got 'batch'"),
        ({"backbone_widths": [16]}, "expected as many backbone_widths as backbone_depths"),
    ],
)
def test_wrong_resnets_are_refused(args, message):
    with pytest.raises(ConfigError, match=message):
        fill_config(CNNMLPPolicyConfig, args)


def test_a_pretrained_backbone_is_not_ignored():
    with pytest.raises(ValueError, match="expected encoder: resnet with a pretrained_backbone"):
        CNNMLPPolicyConfig(pretrained_backbone="no/such")
