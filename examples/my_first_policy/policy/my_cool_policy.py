# In policy/my_cool_policy.py
from transformers import PretrainedConfig

class MyCoolPolicyConfig(PretrainedConfig):
    def __init__(
        self,
        image_feature_dim=512,
        state_dim=14,
        action_dim=14,
        hidden_size=1024,
        num_layers=3,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_feature_dim = image_feature_dim
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers

# In policy/my_cool_policy.py
import torch
from transformers import PreTrainedModel
import torch.nn as nn

class MyCoolPolicy(PreTrainedModel):
    config_class = MyCoolPolicyConfig  # Link to your config class

    def __init__(self, config: MyCoolPolicyConfig):
        super().__init__(config)
        # Define your model layers based on the config
        self.image_projector = nn.Linear(config.image_feature_dim, config.hidden_size)
        self.state_projector = nn.Linear(config.state_dim, config.hidden_size)
        
        # A simple MLP backbone
        mlp_layers = [nn.Linear(config.hidden_size * 2, config.hidden_size), nn.ReLU()]
        for _ in range(config.num_layers - 1):
            mlp_layers += [nn.Linear(config.hidden_size, config.hidden_size), nn.ReLU()]
        self.backbone = nn.Sequential(*mlp_layers)
        
        self.action_head = nn.Linear(config.hidden_size, config.action_dim)
        self.post_init()

    def forward(self, image_features, state, actions=None, is_pad=None):
        """
        The forward pass is used by the trainer.
        `actions` and `is_pad` are provided during training.
        """
        # Project and concatenate inputs
        img_embed = self.image_projector(image_features)
        state_embed = self.state_projector(state)
        x = torch.cat([img_embed, state_embed], dim=-1)
        
        # Run through backbone
        x = self.backbone(x)
        
        # Get action prediction
        pred_action = self.action_head(x)
        
        if actions is not None:  # Training mode
            loss = nn.functional.l1_loss(pred_action, actions)
            return {'loss': loss}
        else:  # Inference mode
            return pred_action
            
    def select_action(self, obs_dict):
        """
        A separate method for clean inference, used by the MetaPolicy.
        """
        # Preprocess observations, move to device, etc.
        # ...
        # Call the forward pass in inference mode
        return self.forward(obs_dict['image'], obs_dict['state'])
