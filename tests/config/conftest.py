"""A user's project: the guide's policy, one dataset folder, tasks written by each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

POLICY = """\
from transformers import PretrainedConfig, PreTrainedModel


class MyCoolPolicyConfig(PretrainedConfig):
    def __init__(self, image_feature_dim=512, state_dim=14, action_dim=14, hidden_size=1024, num_layers=3, **kwargs):
        super().__init__(**kwargs)


class MyCoolPolicy(PreTrainedModel):
    config_class = MyCoolPolicyConfig


class ChunkPolicyConfig(PretrainedConfig):
    def __init__(
        self,
        chunk_size: int = 10,
        n_action_steps: int = 5,
        image_size: "int | tuple[int, int]" = 84,
        camera_names: list[str] | None = None,
        dropout: float = 0.1,
        activation: "Literal['relu', 'gelu']" = "relu",
        use_vae: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)


class ChunkPolicy(PreTrainedModel):
    config_class = ChunkPolicyConfig
"""

PARTS = """\
class MyData:
    def __init__(self, path, stride: int = 1):
        pass


class MyEnv:
    def __init__(self, task, max_episode_steps=100):
        pass


class MyEncoder:
    def __init__(self, width: int):
        pass
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes files of a project, in whose folder the test runs, and returns the task `configs/task/x.yaml`."""
    project = tmp_path / "project"
    files = {
        "policy/my_cool_policy.py": POLICY,
        "dataset/my_data.py": PARTS,
        "env/my_env.py": PARTS,
        "image_encoder/my_encoder.py": PARTS,
    }

    def write(task: str, **more: str) -> Path:
        for name, text in {**files, "configs/task/x.yaml": task, **more}.items():
            file = project / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (project / "data" / "cube").mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(project)
        return project / "configs/task/x.yaml"

    return write
