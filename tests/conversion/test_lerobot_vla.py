"""SmolVLA, pi0 and pi05 of LeRobot 0.6.1 answer the same here; `fixtures/lerobot_vla` holds what LeRobot answered."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from menura.conversion.converting import convert
from menura.conversion.foreign import policy_class
from menura.conversion.lerobot import paligemma
from menura.conversion.lerobot.config import LeRobotConfig
from menura.conversion.lerobot.converters import converter
from menura.conversion.lerobot.reading import read
from menura.conversion.weights import Weights
from menura.errors import CheckpointError, StatisticsError
from menura.meta_policy import MetaPolicy
from menura.policies.contract import Contract, fill_config

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lerobot_vla"
sys.path.insert(0, str(FIXTURES))
from weights import unfolded, weight  # noqa: E402

NAMES = ["smolvla", "pi0", "pi05"]
TASKS = ["pick up the_cube", "open it\n"]


@pytest.fixture
def small(monkeypatch):
    """The sizes that the fixtures have in the place of those LeRobot has written down."""
    gemma = {
        "gemma_2b": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3},
        "gemma_300m": {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3},
    }
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setattr(paligemma, "GEMMA", gemma)
    monkeypatch.setitem(paligemma.LANGUAGE, "vocab_size", 384)
    monkeypatch.setitem(paligemma.LANGUAGE, "head_dim", 4)
    monkeypatch.setattr(paligemma, "VISION_MODEL", {**vision, "image_size": 28, "patch_size": 14})


def checkpoint(name: str, directory: Path) -> Path:
    """The directory that LeRobot wrote, with its weights."""
    shutil.copytree(FIXTURES / name, directory)
    layout = unfolded(json.loads((directory / "layout.json").read_text()))
    tensors = {key: torch.from_numpy(weight(key, shape)) for key, shape in layout.items()}
    save_file(tensors, directory / "model.safetensors")
    return directory


def edited(directory: Path, **options: object) -> Path:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **options}))
    return directory


def loaded(directory: Path):
    foreign = read(directory, {})
    foreign.policy.config.tokenizer = "bytes"
    return foreign


def golden_of(name: str) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    with np.load(FIXTURES / name / "golden.npz") as file:
        golden = dict(file)
    images = {key: golden[f"image_{key}"] for key in ("top", "wrist")}
    return golden, {"state": golden["state"], "images": images, "task": TASKS}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", NAMES)
def test_the_actions_are_those_of_lerobot(name, tmp_path):
    foreign = loaded(checkpoint(name, tmp_path / name))
    golden, obs = golden_of(name)
    meta = MetaPolicy(foreign.policy, foreign.processor)
    noise = torch.from_numpy(golden["noise"])
    inputs = meta.inputs(obs)
    np.testing.assert_allclose(meta.infer(inputs, noise=noise).numpy(), golden["chunk"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(meta.predict(obs, noise=noise), golden["actions"], rtol=0, atol=1e-4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_regresses_what_lerobot_regresses(name, tmp_path):
    foreign = loaded(checkpoint(name, tmp_path / name))
    golden, obs = golden_of(name)
    inputs = MetaPolicy(foreign.policy, foreign.processor).inputs(obs)
    noise, time = torch.from_numpy(golden["noise"]), torch.tensor([0.3, 0.8])
    data = torch.full_like(noise, 0.25)
    sample = data + time[:, None, None] * (noise - data)
    with torch.no_grad():
        velocity = foreign.policy.denoise(sample, time, foreign.policy.condition(inputs))
    np.testing.assert_allclose((velocity - (noise - data)).square().numpy(), golden["losses"], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", NAMES)
def test_the_prompts_are_those_of_lerobot(name, tmp_path):
    foreign = loaded(checkpoint(name, tmp_path / name))
    golden, obs = golden_of(name)
    policy, seen = foreign.policy, {}
    original = policy.tokenize
    policy.tokenize = lambda texts, *rest: seen.setdefault("tokens", original(texts, *rest))
    policy.condition(MetaPolicy(policy, foreign.processor).inputs(obs))
    ids, mask = seen["tokens"]
    np.testing.assert_array_equal(ids.numpy(), golden["tokens"])
    np.testing.assert_array_equal(mask.numpy(), golden["tokens"] != 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_of_the_real_size_has_a_place(name):
    layout = unfolded(json.loads((FIXTURES / name / "real_layout.json").read_text()))
    data = json.loads((FIXTURES / name / "config.json").read_text())
    with torch.device("meta"):
        weights = Weights({key: torch.empty(shape) for key, shape in layout.items()}, "model.safetensors")
    data |= {"max_state_dim": 32, "max_action_dim": 32, "num_vlm_layers": 16, "image_resolution": [224, 224]}
    data |= {"vlm_model_name": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "resize_imgs_with_padding": [512, 512]}
    rules = converter(name, "config.json")
    class_ = policy_class(rules.POLICY)
    facts = {"state_dim": 5, "action_dim": 3, "camera_names": ["top", "wrist"]}
    config = fill_config(class_.config_class, {**facts, **rules.config_of(LeRobotConfig(data, "config.json"))})
    with torch.device("meta"):
        policy = class_(config)
    tensors = rules.state_dict_of(weights, config)
    assert weights.left == ()
    expected = {key: tuple(value.shape) for key, value in policy.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in tensors.items()} == expected
    dropped = sum(torch.Size(layout[key]).numel() for key in weights.dropped)
    assert sum(p.numel() for p in policy.parameters()) + dropped == sum(torch.Size(s).numel() for s in layout.values())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_weights_of_openpis_converter_lack_a_prefix(name, tmp_path):
    directory = checkpoint(name, tmp_path / name)
    tensors = load_file(directory / "model.safetensors")
    tensors = {key.removeprefix("model."): value for key, value in tensors.items()}
    embeddings = tensors.pop("paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight")
    tensors["paligemma_with_expert.paligemma.lm_head.weight"] = embeddings
    save_file(tensors, directory / "model.safetensors")
    golden, obs = golden_of(name)
    foreign = loaded(directory)
    actions = MetaPolicy(foreign.policy, foreign.processor).predict(obs, noise=torch.from_numpy(golden["noise"]))
    np.testing.assert_allclose(actions, golden["actions"], rtol=0, atol=1e-4)


def test_converted_it_needs_nothing_of_lerobot(tmp_path):
    """Its tokenizer, that of the directory beside the config, is saved with it."""
    directory = checkpoint("smolvla", tmp_path / "smolvla")
    words = Tokenizer(WordLevel({"?": 0, "pick": 7, "up": 8, "it": 9}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="?").save_pretrained(directory / "vlm")
    golden, obs = golden_of("smolvla")
    noise = torch.from_numpy(golden["noise"])
    expected = MetaPolicy.from_pretrained(directory).predict(obs, noise=noise)
    out = convert(directory, tmp_path / "out")
    shutil.rmtree(directory)
    assert np.array_equal(MetaPolicy.from_pretrained(out).predict(obs, noise=noise), expected)


def as_before_processors(directory: Path, datasets: tuple[str, ...]) -> Path:
    """As LeRobot wrote it before 0.4: statistics among the weights."""
    tensors = load_file(directory / "model.safetensors")
    statistics = load_file(next(directory.glob("policy_preprocessor_step_*_normalizer_processor.safetensors")))
    heads = {"observation.state": ("normalize_inputs",), "action": ("normalize_targets", "unnormalize_outputs")}
    for name, value in statistics.items():
        feature, _, statistic = name.rpartition(".")
        for head in heads.get(feature, ()):
            for number, dataset in enumerate(datasets):
                part = f"{dataset}.buffer" if dataset else "buffer"
                key = f"{head}.{part}_{feature.replace('.', '_')}.{statistic}"
                tensors[key] = value + number
    save_file(tensors, directory / "model.safetensors")
    for file in directory.glob("policy_p*"):
        file.unlink()
    return directory


def test_a_directory_without_processors(tmp_path):
    directory = as_before_processors(checkpoint("smolvla", tmp_path / "smolvla"), ("",))
    golden, obs = golden_of("smolvla")
    foreign = loaded(directory)
    actions = MetaPolicy(foreign.policy, foreign.processor).predict(obs, noise=torch.from_numpy(golden["noise"]))
    np.testing.assert_allclose(actions, golden["actions"], rtol=0, atol=1e-4)


def test_statistics_of_several_datasets_are_datasets(tmp_path):
    directory = as_before_processors(checkpoint("smolvla", tmp_path / "smolvla"), ("so100", "so100-red"))
    golden, obs = golden_of("smolvla")
    foreign = loaded(directory)
    noise = torch.from_numpy(golden["noise"])
    actions = MetaPolicy(foreign.policy, foreign.processor, dataset="so100").predict(obs, noise=noise)
    np.testing.assert_allclose(actions, golden["actions"], rtol=0, atol=1e-4)
    other = MetaPolicy(foreign.policy, foreign.processor, dataset="so100-red").predict(obs, noise=noise)
    assert not np.allclose(other, actions, atol=1e-2)


def test_a_base_model_without_statistics_is_refused(tmp_path):
    directory = checkpoint("smolvla", tmp_path / "smolvla")
    for file in directory.glob("policy_p*"):
        file.unlink()
    with pytest.raises(StatisticsError, match=r"fine-tune"):
        read(directory, {})


def test_mixed_types_become_float32(tmp_path):
    directory = checkpoint("smolvla", tmp_path / "smolvla")
    tensors = load_file(directory / "model.safetensors")
    tensors = {key: value.bfloat16() if ".vlm." in key else value for key, value in tensors.items()}
    save_file(tensors, directory / "model.safetensors")
    golden, obs = golden_of("smolvla")
    foreign = loaded(directory)
    assert {p.dtype for p in foreign.policy.parameters()} == {torch.float32}
    actions = MetaPolicy(foreign.policy, foreign.processor).predict(obs, noise=torch.from_numpy(golden["noise"]))
    np.testing.assert_allclose(actions, golden["actions"], rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("adapt_to_pi_aloha", True, "ALOHA"),
        ("add_image_special_tokens", True, "tokens around images"),
        ("num_expert_layers", 2, "num_vlm_layers"),
        ("resize_imgs_with_padding", None, "resize_imgs_with_padding"),
        ("vlm_model_name", "somewhere/else", "vlm_model_name"),
        ("max_period", 2.0, "max_period"),
        ("n_obs_steps", 2, "one observation"),
        ("normalization_mapping", {"VISUAL": "MEAN_STD"}, "VISUAL IDENTITY"),
        ("an_option_of_tomorrow", 1, "an_option_of_tomorrow"),
    ],
)
def test_what_ours_does_not_have_is_refused(option, value, told, tmp_path):
    directory = edited(checkpoint("smolvla", tmp_path / "smolvla"), **{option: value})
    with pytest.raises((CheckpointError, StatisticsError), match=told):
        read(directory, {})


@pytest.mark.usefixtures("small")
def test_pi0_sees_no_oblong(tmp_path):
    with pytest.raises(CheckpointError, match="image_resolution of a square"):
        read(edited(checkpoint("pi0", tmp_path / "pi0"), image_resolution=[28, 42]), {})


@pytest.mark.usefixtures("small")
def test_cameras_that_were_never_there_are_not_asked_for(tmp_path):
    foreign = read(checkpoint("pi0", tmp_path / "pi0"), {})
    assert foreign.policy.config.camera_names == ["top", "wrist"]
    assert Contract.of(type(foreign.policy)).required == ("task",)
