"""MLPPolicy: from state, from frozen image features, or from both."""

from __future__ import annotations

import pytest
import torch

from menura.errors import ConfigError
from menura.features import CameraFeature, Features, VectorFeature
from menura.policies.check import check_policy
from menura.policies.contract import build_policy, fill_config
from menura.policies.mlp.configuration_mlp import MLPPolicyConfig
from menura.policies.mlp.modeling_mlp import MLPPolicy
from menura.policies.needs import Needs

SMALL = {"hidden_size": 32, "chunk_size": 4, "n_action_steps": 2}
FEATURES = Features(
    VectorFeature.of_width(3, "state"),
    VectorFeature.of_width(2, "action"),
    {"a": CameraFeature(8, 8), "b": CameraFeature(8, 8)},
)


@pytest.mark.parametrize("n_obs_steps", [1, 2])
def test_it_keeps_the_contract_with_image_features(n_obs_steps):
    results = check_policy("MLPPolicy", args={**SMALL, "image_feature_dim": 16, "n_obs_steps": n_obs_steps})
    assert [result.message for result in results if not result.ok] == []


def test_no_camera_is_looked_at_without_an_image_encoder():
    policy = build_policy(MLPPolicy, SMALL, FEATURES)
    assert Needs.of(policy.config).cameras(FEATURES) == ()
    encoded = build_policy(MLPPolicy, SMALL, FEATURES, image_encoder_dim=5)
    assert encoded.config.image_feature_dim == 10
    assert Needs.of(encoded.config).cameras(FEATURES) == ("a", "b")


def test_what_a_row_lacks_is_read_as_0():
    policy = MLPPolicy(MLPPolicyConfig(state_dim=3, action_dim=2, image_feature_dim=6, **SMALL)).eval()
    state, features = torch.randn(2, 3), torch.randn(2, 6)
    mask = torch.tensor([[True, False], [True, True]])
    blotted = features.clone()
    blotted[0, 3:] = 0
    expected = policy(state=state, image_features=blotted)
    assert torch.equal(policy(state=state, image_features=features, image_mask=mask), expected)


def test_wrong_inputs_and_settings_are_said():
    policy = MLPPolicy(MLPPolicyConfig(state_dim=3, image_feature_dim=6, **SMALL))
    with pytest.raises(ValueError, match="expected image features of width 6, got none"):
        policy(state=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="expected a state of width 3, got none"):
        policy(image_features=torch.zeros(1, 6))
    with pytest.raises(ConfigError, match="expected a state or image features to see"):
        fill_config(MLPPolicyConfig, {"state_dim": 0})
