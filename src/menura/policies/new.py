"""`menura new policy`: the two files to start from."""

from __future__ import annotations

import keyword
from pathlib import Path

from menura.errors import ContractError
from menura.files import write_text

_POLICY = '''"""{class_name}: say here what it does and which paper it follows."""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class {class_name}Config(PretrainedConfig):
    """Settings, all with defaults. `state_dim` and `action_dim` are filled in from the data."""

    def __init__(
        self,
        state_dim=14,
        action_dim=14,
        chunk_size=50,  # actions predicted
        n_action_steps=25,  # of which so many are executed before predicting again
        hidden_size=512,
        num_layers=2,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.hidden_size = hidden_size
        self.num_layers = num_layers


class {class_name}(PreTrainedModel):
    config_class = {class_name}Config

    def __init__(self, config):
        super().__init__(config)
        layers = []
        width = config.state_dim
        for _ in range(config.num_layers):
            layers += [nn.Linear(width, config.hidden_size), nn.ReLU()]
            width = config.hidden_size
        self.backbone = nn.Sequential(*layers)
        self.action_head = nn.Linear(width, config.chunk_size * config.action_dim)
        self.post_init()  # transformers needs it as the last line

    def forward(self, state, actions=None, is_pad=None):
        """The trainer passes what is named here; add `image`, `task`, ... to get them too.

        state (B, state_dim), actions (B, chunk_size, action_dim), is_pad (B, chunk_size): true past the episode's end.
        """
        predicted = self.action_head(self.backbone(state))
        predicted = predicted.reshape(-1, self.config.chunk_size, self.config.action_dim)
        if actions is None:
            return predicted
        error = (predicted - actions).abs().mean(dim=-1)  # (B, chunk_size)
        loss = (error * ~is_pad).sum() / (~is_pad).sum().clamp(min=1)
        return {{"loss": loss}}  # further scalars are logged

    @torch.no_grad()
    def select_action(self, obs_dict):
        """The chunk (B, chunk_size, action_dim) for a batch of observations, which has forward's names as keys."""
        return self.forward(obs_dict["state"])
'''

_TASK = """# The way from here:
#   menura check policy {class_name}
#   menura train {stem} --output_dir out
#   menura eval -m out
datasets:
  - data/my_dataset  # a LeRobotDataset, or class: and args: of a dataset of your own

# Where the policy is evaluated, and who solves it there for `menura collect`. Uncomment and name yours:
# env: aloha_transfer  # or class: and args: of an environment of your own
# expert:
#   class: AlohaTransferExpert

policy:
  class: {class_name}
  args:
    hidden_size: 512
    num_layers: 2

training:
  max_steps: 2000
"""


def new_policy(name: str, project: Path | None = None) -> list[Path]:
    """Write `policy/<name>.py` and `configs/task/<name>.yaml`, which train a small policy as they are.

    Args:
        name: of the file, in snake_case, such as `my_cool_policy`; the class is then `MyCoolPolicy`. The class's name
            is taken as well.
        project: where to; the working directory when not given.

    Returns:
        The files written.

    Raises:
        ContractError: the name makes no Python module, or one of the files is there already; nothing is written.
    """
    project = project or Path.cwd()
    stem = _snake_case(name)
    if not stem.isidentifier() or keyword.iskeyword(stem) or not stem.isascii():
        raise ContractError(
            f"new policy: expected a name of letters, digits and underscores that starts with a letter, got {name!r}. "
            "Try `my_cool_policy`."
        )
    class_name = "".join(part[:1].upper() + part[1:] for part in stem.split("_"))
    if not class_name.isidentifier():
        raise ContractError(f"new policy: expected a name that makes a class, got {name!r}. Try `my_cool_policy`.")
    texts = {
        project / "policy" / f"{stem}.py": _POLICY.format(class_name=class_name),
        project / "configs" / "task" / f"{stem}.yaml": _TASK.format(class_name=class_name, stem=stem),
    }
    for file in texts:
        if file.exists():
            raise ContractError(f"{file}: expected no such file, got one. Choose another name, or remove it.")
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    return list(texts)


def _snake_case(name: str) -> str:
    """`MyCoolPolicy` -> `my_cool_policy`; a name already in snake_case stays."""
    if name != name.lower() and "_" not in name:
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
    return name.replace("-", "_")
