"""WordPolicy: an image, the state and an instruction to a chunk of actions. A sentence is the mean of its words.

Shapes: B batch, K cameras, H W pixels, D state, T chunk, A action.
"""

import re
import zlib

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class WordPolicyConfig(PretrainedConfig):
    def __init__(
        self,
        state_dim=4,  # filled in from the data, as are action_dim and camera_names
        action_dim=4,
        camera_names=None,
        image_size=(64, 64),
        chunk_size=8,
        n_action_steps=4,
        n_words=256,  # rows of the table of words; a word's row is its hash
        hidden_size=256,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = camera_names
        self.image_size = image_size
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.n_words = n_words
        self.hidden_size = hidden_size


class WordPolicy(PreTrainedModel):
    config_class = WordPolicyConfig

    def __init__(self, config):
        super().__init__(config)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            features = self.encoder(torch.zeros(1, 3, *config.image_size)).shape[1]
        cameras = len(config.camera_names or ["camera"])
        self.sentence = nn.EmbeddingBag(config.n_words, config.hidden_size, mode="mean")
        self.seen = nn.Linear(cameras * features + config.state_dim, config.hidden_size)
        self.head = nn.Sequential(
            nn.Linear(2 * config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.chunk_size * config.action_dim),
        )
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.EmbeddingBag)):
            module.reset_parameters()

    def forward(self, image, state, task, actions=None, is_pad=None):
        """image (B, K, 3, H, W), state (B, D), task: B sentences; in training actions (B, T, A) and is_pad (B, T)."""
        seen = self.encoder(image.flatten(0, 1)).reshape(len(image), -1)
        seen = self.seen(torch.cat([seen, state], dim=1))
        words, starts = self.words(task)
        told = self.sentence(words, starts)  # (B, hidden_size)
        predicted = self.head(torch.cat([seen.relu(), told], dim=1))
        predicted = predicted.reshape(-1, self.config.chunk_size, self.config.action_dim)
        if actions is None:
            return predicted
        error = (predicted - actions).abs().mean(dim=-1)  # (B, T)
        return {"loss": (error * ~is_pad).sum() / (~is_pad).sum().clamp(min=1)}

    @torch.no_grad()
    def select_action(self, obs_dict):
        return self.forward(obs_dict["image"], obs_dict["state"], obs_dict["task"])

    def words(self, task):
        """Every word's row, one sentence after the other, and where each sentence starts."""
        # crc32 and not hash(), which is another in every process.
        rows = [[zlib.crc32(word.encode()) % self.config.n_words for word in split(text)] for text in task]
        starts = [sum(map(len, rows[:i])) for i in range(len(rows))]
        flat = [row for sentence in rows for row in sentence]
        return torch.tensor(flat, device=self.device), torch.tensor(starts, device=self.device)


def split(text):
    return re.findall(r"[a-z0-9]+", text.lower())
