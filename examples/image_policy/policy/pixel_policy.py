"""PixelPolicy: from camera images and the state to a chunk of actions, through three convolutions.

Shapes: B batch, K cameras, H W pixels, D state, T chunk, A action.
"""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class PixelPolicyConfig(PretrainedConfig):
    def __init__(
        self,
        state_dim=4,  # filled in from the data, as are action_dim and camera_names
        action_dim=4,
        camera_names=None,
        image_size=(84, 84),  # every image comes in this size
        image_normalize="minus_one_one",  # and in [-1, 1]
        chunk_size=8,  # actions predicted
        n_action_steps=4,  # of which so many are executed before predicting again
        hidden_size=256,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = camera_names
        self.image_size = image_size
        self.image_normalize = image_normalize
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.hidden_size = hidden_size


class PixelPolicy(PreTrainedModel):
    config_class = PixelPolicyConfig

    def __init__(self, config):
        super().__init__(config)
        self.encoder = nn.Sequential(  # one for all cameras
            nn.Conv2d(3, 32, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            features = self.encoder(torch.zeros(1, 3, *config.image_size)).shape[1]
        cameras = len(config.camera_names or ["camera"])
        self.head = nn.Sequential(
            nn.Linear(cameras * features + config.state_dim, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.chunk_size * config.action_dim),
        )
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.reset_parameters()  # PyTorch's own; without this method transformers draws normal(0, 0.02)

    def forward(self, image, state, actions=None, is_pad=None):
        """image (B, K, 3, H, W), state (B, D); in training actions (B, T, A) and is_pad (B, T)."""
        seen = self.encoder(image.flatten(0, 1))  # (B·K, features)
        seen = seen.reshape(len(image), -1)  # (B, K·features)
        predicted = self.head(torch.cat([seen, state], dim=1))
        predicted = predicted.reshape(-1, self.config.chunk_size, self.config.action_dim)
        if actions is None:
            return predicted
        error = (predicted - actions).abs().mean(dim=-1)  # (B, T)
        loss = (error * ~is_pad).sum() / (~is_pad).sum().clamp(min=1)  # steps past the episode's end do not count
        return {"loss": loss, "first_step_error": error[:, 0].mean()}  # the second is logged

    @torch.no_grad()
    def select_action(self, obs_dict):
        return self.forward(obs_dict["image"], obs_dict["state"])
