"""The policy contract of section 2."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from menura.errors import ConfigError, ContractError
from menura.features import Features, VectorFeature
from menura.policies.contract import (
    Contract,
    Needs,
    build_policy,
    check_finite,
    complete,
    fill_config,
    loss_and_logs,
    observation,
)
from menura.policies.mlp.modeling_mlp import MLPPolicy, MLPPolicyConfig


class Forgetful(PreTrainedModel):
    """Forgot `self.post_init()`, and has weights of its own choice."""

    config_class = MLPPolicyConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = nn.Linear(config.state_dim, config.action_dim)
        nn.init.constant_(self.layer.weight, 3.0)

    def forward(self, state, actions=None, **kwargs):
        return {"loss": (self.layer(state) - actions).abs().mean()}

    def select_action(self, obs_dict):
        return self.layer(obs_dict["state"])


class Greedy(Forgetful):
    def forward(self, state, *, task, image, actions=None):
        return {}


def locate(key: str) -> str:
    return "configs/task/x.yaml:7"


# ---------------------------------------------------------------- Contract


def test_forward_names_its_batch_keys():
    contract = Contract.of(MLPPolicy)
    assert contract.keys == (
        "state",
        "image_features",
        "actions",
        "is_pad",
        "state_mask",
        "image_mask",
        "action_mask",
    )
    assert contract.required == ()
    assert contract.uses_images
    batch = {"state": 1, "image": 2, "actions": 3, "task": 4}
    assert contract.select(batch) == {"state": 1, "actions": 3}


def test_var_keyword_receives_everything():
    batch = {"state": 1, "image": 2, "actions": 3, "task": 4}
    assert Contract.of(Forgetful).select(batch) == batch


def test_a_required_parameter_nobody_provides_lists_what_is_provided():
    with pytest.raises(ContractError) as error:
        Contract.of(Greedy).select({"state": 1, "actions": 3, "task": ["a"]})
    assert str(error.value) == (
        "Greedy.forward: the required parameter 'image' is provided by nobody; expected one of state, actions, task. "
        "Use a dataset that has it, or give the parameter a default."
    )


def test_the_guides_policy_gets_features_in_both_names(guide_policy):
    slot = torch.zeros(2, 512)
    for key in ("image", "image_features"):
        batch = {"state": torch.zeros(2, 14), key: slot, "actions": torch.zeros(2, 14), "is_pad": torch.zeros(2)}
        assert Contract.of(guide_policy).select(batch)["image_features"] is slot
        obs = observation(batch)
        assert obs["image"] is slot
        assert obs["image_features"] is slot
        assert "actions" not in obs
        assert "is_pad" not in obs


def test_pixels_are_not_features(guide_policy):
    batch = {"state": torch.zeros(2, 14), "image": torch.zeros(2, 1, 3, 8, 8)}
    with pytest.raises(ContractError, match="Set `image_encoder:` in the task"):
        Contract.of(guide_policy).select(batch)


# ---------------------------------------------------------------- Needs


def config_with(**attributes) -> PretrainedConfig:
    config = PretrainedConfig()
    for name, value in attributes.items():
        setattr(config, name, value)
    return config


def test_a_config_that_says_nothing_needs_one_observation_and_one_action():
    needs = Needs.of(PretrainedConfig())
    assert needs == Needs()
    assert needs.chunk_size is None
    assert needs.action_offsets is None
    assert needs.observation_offsets == (0,)


def test_offsets_follow_from_sizes():
    needs = Needs.of(config_with(n_obs_steps=3, chunk_size=4, n_action_steps=2, image_size=84))
    assert needs.observation_offsets == (-2, -1, 0)
    assert needs.action_offsets == (0, 1, 2, 3)
    assert needs.n_action_steps == 2
    assert needs.image_size == (84, 84)


def test_sizes_follow_from_offsets():
    needs = Needs.of(config_with(observation_offsets=[-4, 0], action_offsets=[-1, 0, 1], image_size=[48, 64]))
    assert (needs.n_obs_steps, needs.chunk_size, needs.n_action_steps) == (2, 3, 3)
    assert needs.image_size == (48, 64)


def test_training_may_need_more_actions_than_are_answered():
    needs = Needs.of(config_with(chunk_size=2, action_offsets=[-1, 0, 1, 2]))
    assert (needs.chunk_size, needs.n_action_steps, needs.action_offsets) == (2, 2, (-1, 0, 1, 2))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"chunk_size": 4, "n_action_steps": 8},
            "PreTrainedConfig.n_action_steps: expected at most chunk_size = 4, got 8. "
            "Execute fewer actions or predict more.",
        ),
        (
            {"n_action_steps": 2},
            "PreTrainedConfig.n_action_steps: expected at most chunk_size = 1, got 2. "
            "Execute fewer actions or predict more.",
        ),
        ({"chunk_size": 0}, "PreTrainedConfig.chunk_size: expected a whole number of at least 1, got 0."),
        ({"chunk_size": True}, "PreTrainedConfig.chunk_size: expected a whole number of at least 1, got True."),
        ({"n_obs_steps": -1}, "PreTrainedConfig.n_obs_steps: expected a whole number of at least 1, got -1."),
        (
            {"n_obs_steps": 2, "observation_offsets": [0]},
            "PreTrainedConfig.observation_offsets: expected n_obs_steps = 2 of them, got 1. Change either.",
        ),
        (
            {"observation_offsets": [0, 1]},
            "PreTrainedConfig.observation_offsets: expected none above 0 (the future), got [0, 1].",
        ),
        (
            {"chunk_size": 3, "action_offsets": [0, 1]},
            "PreTrainedConfig.action_offsets: expected chunk_size = 3 of them, or more of them with 0 … 2 among them, "
            "got [0, 1]. Change either.",
        ),
        (
            {"action_offsets": [1, 0]},
            "PreTrainedConfig.action_offsets: expected whole numbers in rising order, got [1, 0].",
        ),
        (
            {"camera_names": ["a", "a"]},
            "PreTrainedConfig.camera_names: expected each camera once, got a more than once.",
        ),
        (
            {"image_size": [1, 2, 3]},
            "PreTrainedConfig.image_size: expected one side or [height, width] in pixels, got [1, 2, 3].",
        ),
    ],
)
def test_contradicting_needs_are_refused(attributes, message):
    with pytest.raises(ContractError) as error:
        Needs.of(config_with(**attributes))
    assert str(error.value) == message


# ---------------------------------------------------------------- fill_config


class CameraConfig(PretrainedConfig):
    def __init__(self, state_dim=1, action_dim=1, camera_names=None, image_feature_dim=512, rate=0, **kwargs):
        super().__init__(**kwargs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = camera_names
        self.image_feature_dim = image_feature_dim
        self.rate = rate


class FieldConfig(PretrainedConfig):
    """A config in the style of transformers 5, without an `__init__`."""

    state_dim: int = 14
    hidden_size: int = 8


def test_data_attributes_are_filled_in(features):
    config = fill_config(CameraConfig, {}, features, image_encoder_dim=16)
    assert (config.state_dim, config.action_dim) == (5, 3)
    assert config.camera_names == ["front", "wrist"]
    assert config.image_feature_dim == 32


def test_configs_of_fields_are_filled_in_too(features):
    config = fill_config(FieldConfig, {"hidden_size": 4}, features)
    assert (config.state_dim, config.hidden_size) == (5, 4)
    with pytest.raises(ConfigError, match="did you mean hidden_size"):
        fill_config(FieldConfig, {"hiden_size": 4}, features)


def test_what_agrees_with_the_data_may_be_said(features):
    config = fill_config(CameraConfig, {"state_dim": 5, "camera_names": ["wrist"]}, features, image_encoder_dim=16)
    assert config.camera_names == ["wrist"]
    assert config.image_feature_dim == 16


def test_no_cameras_is_a_choice(features):
    assert fill_config(CameraConfig, {"camera_names": []}, features).camera_names == []


def test_without_features_nothing_is_filled_in():
    assert fill_config(CameraConfig, {}).state_dim == 1


def test_features_without_state():
    features = Features(state=None, action=VectorFeature.of_width(3, "action"))
    assert fill_config(CameraConfig, {}, features).state_dim == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"sate_dim": 3},
            "policy.args.sate_dim: no such argument of CameraConfig; did you mean state_dim? (configs/task/x.yaml:7)",
        ),
        (
            {"zzz": 3},
            "policy.args.zzz: no such argument of CameraConfig; it takes state_dim, action_dim, camera_names, "
            "image_feature_dim, rate. (configs/task/x.yaml:7)",
        ),
        (
            {"state_dim": 14},
            "policy.args.state_dim: expected 5, the width of the data's state, got 14. "
            "Remove it (it is filled in from the data) or use other data. (configs/task/x.yaml:7)",
        ),
        (
            {"camera_names": ["frnt"]},
            "policy.args.camera_names: expected cameras of the data (front, wrist), got frnt; did you mean front? "
            "(configs/task/x.yaml:7)",
        ),
        (
            {"image_feature_dim": 512},
            "policy.args.image_feature_dim: expected 32, 16 of the image encoder for each of 2 cameras, got 512. "
            "Remove it (it is filled in from the data) or use other data. (configs/task/x.yaml:7)",
        ),
        ({"rate": "fast"}, "policy.args.rate: expected a number, got 'fast'. (configs/task/x.yaml:7)"),
    ],
)
def test_wrong_arguments_are_refused(features, args, message):
    with pytest.raises(ConfigError) as error:
        fill_config(CameraConfig, args, features, image_encoder_dim=16, locate=locate)
    assert str(error.value) == message


def test_all_problems_are_told_at_once(features):
    with pytest.raises(ConfigError) as error:
        fill_config(CameraConfig, {"state_dim": 1, "action_dim": 2}, features)
    assert len(error.value.problems) == 2


def test_what_the_class_itself_refuses_is_an_error_of_the_config(features):
    with pytest.raises(ConfigError, match=r"policy.args: MLPPolicyConfig refuses them: expected hidden_size"):
        fill_config(MLPPolicyConfig, {"hidden_size": 0}, features)
    with pytest.raises(ConfigError, match=r"policy.args.n_action_steps: expected at most chunk_size = 4, got 25"):
        fill_config(MLPPolicyConfig, {"chunk_size": 4}, features)


# ---------------------------------------------------------------- building


def test_build_policy(features):
    policy = build_policy(MLPPolicy, {"hidden_size": 8}, features)
    assert policy.select_action({"state": torch.zeros(2, 5)}).shape == (2, 50, 3)


def test_a_forgotten_post_init_is_completed_and_keeps_the_weights(features, tmp_path):
    policy = build_policy(Forgetful, {}, features)
    assert torch.equal(policy.layer.weight, torch.full((3, 5), 3.0))
    torch.nn.init.constant_(policy.layer.weight, 4.0)
    policy.save_pretrained(tmp_path)
    again = Forgetful.from_pretrained(tmp_path)
    assert torch.equal(again.layer.weight, torch.full((3, 5), 4.0))


def test_a_subclass_of_a_completed_class_is_completed_too(features, tmp_path):
    class Child(Forgetful):
        pass

    build_policy(Forgetful, {}, features)
    for _ in range(2):
        policy = build_policy(Child, {}, features)
    policy.save_pretrained(tmp_path)
    assert torch.equal(Child.from_pretrained(tmp_path).layer.weight, policy.layer.weight)


def test_complete_leaves_a_whole_model_alone():
    policy = MLPPolicy(MLPPolicyConfig(hidden_size=4))
    before = policy.action_head.weight.clone()
    assert complete(policy) is policy
    assert torch.equal(policy.action_head.weight, before)


@pytest.mark.parametrize(
    ("policy_class", "message"),
    [
        (nn.Linear, "policy Linear: expected a subclass of transformers.PreTrainedModel, got one of Module."),
        (
            type("Bare", (PreTrainedModel,), {}),
            "policy Bare: expected config_class to be a subclass of transformers.PretrainedConfig, got None.",
        ),
        (
            type("Mute", (PreTrainedModel,), {"config_class": MLPPolicyConfig}),
            "policy Mute: expected a method forward, got none.",
        ),
    ],
)
def test_a_class_that_is_no_policy(policy_class, message):
    with pytest.raises(ContractError) as error:
        build_policy(policy_class, {})
    assert str(error.value).startswith(message)


# ---------------------------------------------------------------- the loss


def test_every_other_scalar_is_logged():
    loss = torch.tensor([2.0], requires_grad=True)
    output = {"loss": loss, "l1_loss": torch.tensor(1.5), "kl": 0.5, "hidden": torch.zeros(3), "flag": True}
    got, logs = loss_and_logs(output)
    assert got.shape == ()
    assert got.requires_grad
    assert check_finite(got, logs) == {"loss": 2.0, "l1_loss": 1.5, "kl": 0.5}


def test_a_model_output_will_do():
    got, logs = loss_and_logs(ModelOutput(loss=torch.tensor(1.0), part=torch.tensor(2.0)))
    assert float(got) == 1.0
    assert list(logs) == ["part"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(2, 3), "P.forward in training: expected a dict with 'loss', got a tensor of shape (2, 3)."),
        ({"los": 1}, "P.forward in training: expected a dict with 'loss', got the keys ['los']."),
        (
            {"loss": torch.zeros(4)},
            "P.forward in training: expected 'loss' to be a scalar tensor, got a tensor of shape (4,).",
        ),
        ({"loss": 1.0}, "P.forward in training: expected 'loss' to be a scalar tensor, got float."),
    ],
)
def test_outputs_without_a_loss_are_refused(output, message):
    with pytest.raises(ContractError) as error:
        loss_and_logs(output, "P")
    assert str(error.value).startswith(message)


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(ContractError, match=r"expected a finite loss, got nan \(kl = 1\)"):
        check_finite(torch.tensor(float("nan")), {"kl": torch.tensor(1.0)})
