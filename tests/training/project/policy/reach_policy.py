from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class ReachPolicyConfig(PretrainedConfig):
    def __init__(self, state_dim=4, action_dim=2, chunk_size=4, n_action_steps=2, dropout=0.1, **kwargs):
        super().__init__(**kwargs)
        self.state_dim, self.action_dim = state_dim, action_dim
        self.chunk_size, self.n_action_steps, self.dropout = chunk_size, n_action_steps, dropout


class ReachPolicy(PreTrainedModel):
    config_class = ReachPolicyConfig

    def __init__(self, config):
        super().__init__(config)
        self.net = nn.Sequential(
            nn.Linear(config.state_dim, 32),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(32, config.chunk_size * config.action_dim),
        )
        self.post_init()

    def forward(self, state, actions=None, is_pad=None):
        predicted = self.net(state).unflatten(-1, (self.config.chunk_size, self.config.action_dim))
        if actions is None:
            return predicted
        error = (predicted - actions).abs()[~is_pad]
        return {"loss": error.mean(), "largest": error.max()}

    def select_action(self, obs_dict):
        return self.forward(obs_dict["state"])
