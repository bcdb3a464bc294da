"""Do LeRobot and Menura answer the same with each other's policies?

Run by hand, in LeRobot's environment (`tools/check_with_lerobot.py` says how it is made; further `transformers`,
`diffusers` and what Menura needs), whenever a converter or the supported LeRobot changes:

    HF_HUB_OFFLINE=1 PYTHONPATH=src /tmp/lerobot/bin/python tools/check_policies_with_lerobot.py DIRECTORY …

Each directory is a LeRobot policy (ACT or Diffusion), such as those of `../shared/fixtures`. It is read by Menura,
written back as LeRobot's, and both the old and the new one are asked by LeRobot the same question, and Menura, too. It
prints the largest difference of each, or why there is no way back; the first difference above 1e-4 ends it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

from menura.conversion import load_foreign
from menura.conversion.converting import example_observation
from menura.conversion.lerobot.config import STATE
from menura.conversion.lerobot.directory import LeRobotDirectory
from menura.conversion.lerobot.writing import write
from menura.errors import CheckpointError
from menura.policies.inference import Inference

TOLERANCE = 1e-4
SEED = 3


def ask_lerobot(directory: Path, observation: dict[str, Any], noise: torch.Tensor | None) -> np.ndarray:
    """Physical actions (B, T, A) that LeRobot answers."""
    config = LeRobotDirectory.read(directory).config
    policy = get_policy_class(config.type).from_pretrained(directory)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(directory))
    raw: dict[str, Any] = {}
    parts = torch.from_numpy(observation["state"]).split([config.state_dim, config.env_state_dim], dim=-1)
    for key, part in zip((STATE, config.env_key), parts, strict=True):
        if key in config.inputs and part.shape[-1]:
            raw[str(key)] = part
    for key, camera in zip(config.image_keys, observation.get("images", {}), strict=True):
        pixels = torch.from_numpy(observation["images"][camera]).float() / 255
        raw[key] = pixels.movedim(-1, -3)
    batch = before(raw)
    torch.manual_seed(SEED)  # of the noise that DDPM adds at every step
    with torch.no_grad():
        if noise is None:
            return after(policy.predict_action_chunk(batch)).numpy()
        if config.image_keys:
            batch["observation.images"] = torch.stack([batch[key] for key in config.image_keys], dim=-4)
        return after(policy.diffusion.generate_actions(batch, noise=noise)).numpy()


def check(directory: Path) -> None:
    foreign = load_foreign(directory)
    inference = Inference(foreign.policy, foreign.processor)
    observation = example_observation(foreign.processor)
    noise = None
    if hasattr(foreign.policy, "noise_shape"):
        rows = len(observation["state"])
        noise = torch.randn(rows, *foreign.policy.noise_shape, generator=torch.Generator().manual_seed(SEED))
    expected = ask_lerobot(directory, observation, noise)
    torch.manual_seed(SEED)
    normalized = inference.infer(inference.inputs(observation), noise)
    ours = inference.actions(normalized, observation)[:, : expected.shape[1]]
    answers = {"Menura": ours}
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = write(foreign.policy, foreign.processor, Path(folder) / "back")
            answers["LeRobot, of what Menura wrote"] = ask_lerobot(written, observation, noise)
        except CheckpointError as refusal:
            print(f"{directory.name}: {refusal}")
    for what, got in answers.items():
        difference = float(np.abs(got - expected).max())
        print(f"{directory.name}: {what}: {difference:.1e}")
        if not difference <= TOLERANCE:
            sys.exit(f"{directory}: expected the same actions within {TOLERANCE}, got {difference:.3g} off")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        check(Path(argument))
