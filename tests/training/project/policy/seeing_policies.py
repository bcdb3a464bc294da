import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class PixelPolicyConfig(PretrainedConfig):
    def __init__(self, camera_names=("left", "right"), action_dim=2, n_obs_steps=2, image_size=8, **kwargs):
        super().__init__(**kwargs)
        self.camera_names, self.action_dim = list(camera_names), action_dim
        self.n_obs_steps, self.image_size = n_obs_steps, image_size


class PixelPolicy(PreTrainedModel):
    """Two observations of each camera, one action."""

    config_class = PixelPolicyConfig

    def __init__(self, config):
        super().__init__(config)
        pixels = 3 * config.image_size**2 * config.n_obs_steps * len(config.camera_names)
        self.net = nn.Linear(pixels, config.action_dim)
        self.post_init()

    def forward(self, image, actions=None):
        predicted = self.net(image.flatten(1))
        return predicted if actions is None else {"loss": (predicted - actions).square().mean()}

    def select_action(self, obs_dict):
        return self.forward(obs_dict["image"])


class FeaturePolicyConfig(PretrainedConfig):
    def __init__(self, image_feature_dim=512, state_dim=3, action_dim=2, **kwargs):
        super().__init__(**kwargs)
        self.image_feature_dim, self.state_dim, self.action_dim = image_feature_dim, state_dim, action_dim


class FeaturePolicy(PreTrainedModel):
    config_class = FeaturePolicyConfig

    def __init__(self, config):
        super().__init__(config)
        self.net = nn.Linear(config.image_feature_dim + config.state_dim, config.action_dim)
        self.post_init()

    def forward(self, image_features, state, actions=None, is_pad=None):
        predicted = self.net(torch.cat([image_features, state], dim=-1))
        return predicted if actions is None else {"loss": (predicted - actions).abs().mean()}

    def select_action(self, obs_dict):
        return self.forward(obs_dict["image"], obs_dict["state"])
