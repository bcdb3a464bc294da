"""VQ-BeT of LeRobot 0.6.1 answers the same here; `fixtures/lerobot_vqbet` holds what LeRobot answered."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.lerobot.reading import read
from menura.errors import CheckpointError
from menura.meta_policy import MetaPolicy

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lerobot_vqbet"
sys.path.insert(0, str(FIXTURES))
from vqbet_weights import images, uniform, weight_of  # noqa: E402

NAMES = ["parallel", "sequential"]
ROWS, CAMERA = 3, "image"


def tensors(name: str) -> dict[str, torch.Tensor]:
    layout = json.loads((FIXTURES / name / "layout.json").read_text())
    made = {key: weight_of(key, tuple(shape)) for key, shape in layout.items()}
    return {key: torch.zeros(layout[key]) if value is None else value for key, value in made.items()}


def checkpoint(name: str, directory: Path, changed: dict[str, torch.Tensor] | None = None) -> Path:
    """The directory that LeRobot wrote, with its weights."""
    shutil.copytree(FIXTURES / name, directory)
    save_file({**tensors(name), **(changed or {})}, directory / "model.safetensors")
    return directory


def observation(steps: int) -> dict:
    pixels = images("image", (ROWS, steps, 3, 40, 44))
    return {"state": uniform("state", (ROWS, steps, 4)), "images": {CAMERA: np.moveaxis(pixels, 2, -1)}}


def close(ours: torch.Tensor | np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_in_lerobot(name, tmp_path):
    foreign = read(checkpoint(name, tmp_path / name), {})
    meta = MetaPolicy(foreign.policy, foreign.processor)
    golden = np.load(FIXTURES / f"{name}.golden.npz")
    obs = observation(meta.n_obs_steps)
    assert meta.chunk_size == meta.n_action_steps == golden["actions"].shape[1]
    with torch.inference_mode():
        close(meta.policy.select_action(meta.inputs(obs)), golden["normalized_chunk"])
    close(meta.predict(obs), golden["actions"])


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_as_in_lerobot(name, tmp_path):
    """The codes of what was demonstrated, and the loss of a step of the second phase."""
    foreign = read(checkpoint(name, tmp_path / name), {})
    policy, golden = foreign.policy, np.load(FIXTURES / f"{name}.golden.npz")
    inputs = MetaPolicy(policy, foreign.processor).inputs(observation(policy.config.n_obs_steps))
    actions = torch.from_numpy(golden["normalized_actions"])
    with torch.no_grad():
        assert torch.equal(policy.quantizer.encode(policy._chunks(actions, None)[0]), torch.from_numpy(golden["codes"]))
        losses = policy(inputs["state"], inputs["image"], actions)
    for part in ("code_loss", "offset_loss", "loss"):
        close(losses[part], golden[part])


def test_the_report_says_what_was_left_out(tmp_path):
    report = read(checkpoint("parallel", tmp_path / "it"), {}).report
    assert "moving averages" in report
    assert "a mask of what comes later is computed" in report


def test_codes_that_are_not_learnt_yet_are_refused(tmp_path):
    unfinished = {"vqbet.action_head.vqvae_model.discretized": torch.tensor(False)}
    with pytest.raises(CheckpointError, match="stopped within its first 50 steps"):
        read(checkpoint("parallel", tmp_path / "it", unfinished), {})


def test_other_inputs_are_refused():
    from menura.conversion.lerobot import vqbet

    data = json.loads((FIXTURES / "parallel" / "config.json").read_text())
    del data["input_features"]["observation.state"]
    with pytest.raises(CheckpointError, match="expected a state and one camera"):
        vqbet.config_of(LeRobotConfig(data, "config.json"))
