"""pi0_fast of LeRobot 0.6.1 answers the same here; `fixtures/lerobot_pi0_fast` holds what LeRobot answered."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from menura.conversion.foreign import policy_class
from menura.conversion.lerobot import paligemma, pi0_fast
from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.lerobot.reading import read
from menura.conversion.weights import Weights
from menura.errors import CheckpointError
from menura.meta_policy import MetaPolicy
from menura.policies.contract import fill_config

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lerobot_pi0_fast"
sys.path.insert(0, str(FIXTURE.parent / "lerobot_vla"))
from weights import unfolded, weight  # noqa: E402

TASKS = ["pick up the_cube", "open it\n"]
EMBEDDINGS = "model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """The directory that LeRobot wrote, with its weights; and the sizes that it has in the place of the real ones."""
    gemma = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setattr(paligemma, "GEMMA", {"gemma_2b": gemma})
    monkeypatch.setattr(paligemma, "LANGUAGE", {**paligemma.LANGUAGE, "vocab_size": 640, "head_dim": 4})
    monkeypatch.setattr(pi0_fast, "VISION_MODEL", {**vision, "image_size": 28, "patch_size": 14})
    shutil.copytree(FIXTURE, tmp_path / "theirs")
    layout = unfolded(json.loads((FIXTURE / "layout.json").read_text()))
    tensors = {key: torch.from_numpy(weight(key, shape)) for key, shape in layout.items()}
    save_file(tensors, tmp_path / "theirs" / "model.safetensors")
    return tmp_path / "theirs"


def loaded(directory: Path):
    """With the tokenizers that the fixture was made with in the place of those on the Hub."""
    foreign = read(directory, {})
    foreign.policy.config.tokenizer = "bytes"
    foreign.policy.tokenizer.bos_token = "</s>"
    foreign.policy.config.action_tokenizer = str(directory / "action_tokenizer")
    return foreign


@pytest.fixture
def golden():
    with np.load(FIXTURE / "golden.npz") as file:
        return dict(file)


def observation(golden: dict[str, np.ndarray], rows: slice = slice(None)):
    images = {key: golden[f"image_{key}"][rows] for key in ("top", "wrist")}
    return {"state": golden["state"][rows], "images": images, "task": TASKS[rows]}


def test_the_actions_are_those_of_lerobot(directory, golden):
    foreign = loaded(directory)
    meta = MetaPolicy(foreign.policy, foreign.processor)
    inputs = meta.inputs(observation(golden))
    np.testing.assert_allclose(meta.infer(inputs).numpy(), golden["chunk"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(meta.predict(observation(golden)), golden["actions"], rtol=0, atol=1e-4)
    assert golden["chunk"].any()


def test_a_training_step_is_that_of_lerobot(directory, golden):
    foreign = loaded(directory)
    policy, actions = foreign.policy, torch.from_numpy(golden["demonstration"])
    inputs = MetaPolicy(policy, foreign.processor).inputs(observation(golden, slice(1)))
    tokens, there, _ = policy.answer(actions, None, None)
    theirs = golden["action_tokens"].reshape(-1)
    theirs = theirs[1 : 1 + int(there.sum())]  # LeRobot's begin with the token that here ends the prompt
    np.testing.assert_array_equal(tokens[there].numpy(), theirs)
    with torch.no_grad():
        loss = policy(state=inputs["state"], image=inputs["image"], task=inputs["task"], actions=actions)["loss"]
    np.testing.assert_allclose(float(loss), golden["loss"], rtol=1e-5)


def test_the_prompts_are_those_of_lerobot(directory, golden):
    foreign = loaded(directory)
    inputs = MetaPolicy(foreign.policy, foreign.processor).inputs(observation(golden))
    ids, there, n_beginning = foreign.policy.prompt(inputs["task"], inputs["state"])
    assert n_beginning == 1
    for row, theirs in enumerate(golden["tokens"]):
        assert ids[row, :-1][there[row, :-1]].tolist() == theirs[theirs != 0].tolist()


def test_every_weight_of_the_real_size_has_a_place():
    layout = unfolded(json.loads((FIXTURE / "real_layout.json").read_text()))
    del layout[EMBEDDINGS]  # as where they are the head
    data = {**json.loads((FIXTURE / "config.json").read_text()), "image_resolution": [224, 224]}
    with torch.device("meta"):
        weights = Weights({key: torch.empty(shape) for key, shape in layout.items()}, "model.safetensors")
    class_ = policy_class("PI0FastPolicy")
    facts = {"state_dim": 5, "action_dim": 3, "camera_names": ["top", "wrist"]}
    config = fill_config(class_.config_class, {**facts, **pi0_fast.config_of(LeRobotConfig(data, "config.json"))})
    tensors = pi0_fast.state_dict_of(weights, config)
    assert weights.left == ()
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in class_(config).state_dict().items()}
    del expected["paligemma.lm_head.weight"]
    assert {key: tuple(value.shape) for key, value in tensors.items()} == expected


def test_embeddings_that_are_the_head_are_held_once(directory, golden):
    tensors = load_file(directory / "model.safetensors")
    head = EMBEDDINGS.replace("model.language_model.embed_tokens", "lm_head")
    assert not torch.equal(tensors[head], tensors[EMBEDDINGS])  # as LeRobot, training, leaves them
    del tensors[EMBEDDINGS]
    save_file(tensors, directory / "model.safetensors")
    policy = loaded(directory).policy
    assert policy.paligemma.lm_head.weight is policy.paligemma.model.language_model.embed_tokens.weight
    torch.testing.assert_close(policy.paligemma.lm_head.weight.detach(), tensors[head])


def test_chunks_longer_than_lerobot_read_them_are_told(directory):
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "n_action_steps": 2}))
    assert any("as if they were 2" in note for note in read(directory, {}).notes)


def test_pixels_normalized_otherwise_are_refused(directory):
    file = directory / "config.json"
    data = json.loads(file.read_text())
    data["normalization_mapping"]["VISUAL"] = "MEAN_STD"
    file.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="VISUAL IDENTITY"):
        pi0_fast.config_of(LeRobotConfig(data, "config.json"))
