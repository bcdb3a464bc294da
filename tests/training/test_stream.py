"""A training on data that is fetched when it is needed: exact on resume, and refused where it cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import safetensors.torch
import torch
import yaml

from menura.errors import ConfigError
from menura.training.run import train

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lerobot" / "lerobot_v3_many_files"
TASK = {
    "datasets": [{"path": "memory://bucket/many_files"}],
    "policy": {
        "class": "CNNMLPPolicy",
        "args": {"chunk_size": 4, "n_action_steps": 4, "hidden_size": 16, "image_size": [32, 32]},
    },
    "data": {"store": "stream", "shuffle_buffer": 40},
    "training": {
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "save_steps": 2,
        "warmup_steps": 0,
        "report_to": "none",
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    system = fsspec.filesystem("memory")
    system.put(str(FIXTURE), "/bucket/many_files", recursive=True)
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "configs" / "task").mkdir(parents=True)
    (tmp_path / "configs" / "task" / "far.yaml").write_text(yaml.safe_dump(TASK))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    system.rm("/bucket", recursive=True)


def weights(out: str, *overrides: str) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(
        train("far", output_dir=out, overrides=overrides).directory / "model.safetensors"
    )


def test_a_training_from_afar_goes_on_exactly(project: Path) -> None:
    whole = weights("whole")
    shutil.copytree("whole", "stopped")
    (project / "stopped" / "menura.json").unlink()  # as if it had been killed after its checkpoint of step 2
    shutil.rmtree(project / "stopped" / "checkpoint-4")
    resumed = weights("stopped")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    shuffled = weights("everywhere", "--data.store=raw")
    assert not all(torch.equal(shuffled[name], tensor) for name, tensor in whole.items())


def test_one_dataset_at_a_time(project: Path) -> None:
    datasets = "[memory://bucket/many_files, {path: memory://bucket/many_files, name: again}]"
    with pytest.raises(ConfigError, match=r"data.store: stream: expected one dataset, got 2 \(.*far.yaml:\d+\)"):
        weights("out", f"--datasets={datasets}")
