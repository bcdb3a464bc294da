"""ACT of LeRobot 0.6.1 answers the same here; `fixtures/lerobot_act` holds what LeRobot answered."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from menura.checkpoint import load_checkpoint
from menura.conformance import check_run
from menura.conversion import convert, is_foreign, load_foreign, load_foreign_policy
from menura.conversion.lerobot.writing import write
from menura.errors import CheckpointError, ConfigError, StatisticsError
from menura.features import CameraFeature, Features, VectorFeature
from menura.meta_policy import MetaPolicy
from menura.policies.act.configuration_act import ACTPolicyConfig
from menura.policies.act.modeling_act import ACTPolicy

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lerobot_act"
sys.path.insert(0, str(FIXTURES))
from tensors import tensor, unfolded  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "fixtures"
NAMES = ["environment", "object", pytest.param("resnet50", marks=pytest.mark.slow)]
PREPROCESSOR = "policy_preprocessor.json"
NORMALIZER = "policy_preprocessor_step_3_normalizer_processor.safetensors"
UNNORMALIZER = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"


def checkpoint(name: str, directory: Path) -> Path:
    """The directory that LeRobot wrote, with its weights."""
    shutil.copytree(FIXTURES / name, directory)
    layout = unfolded(json.loads((directory / "layout.json").read_text()))
    save_file(
        {key: torch.from_numpy(tensor(key, shape)) for key, shape in layout.items()}, directory / "model.safetensors"
    )
    return directory


@pytest.fixture
def directory(tmp_path):
    return checkpoint("object", tmp_path / "object")


def golden(name: str) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """What LeRobot answered, and the observation in Menura's form: the robot's state, then the environment's."""
    with np.load(FIXTURES / name / "golden.npz") as file:
        answers = dict(file)
    parts = [answers[key] for key in ("state", "environment_state") if key in answers]
    observation: dict[str, object] = {"state": np.concatenate(parts, axis=1)}
    images = {key.removeprefix("images."): value for key, value in answers.items() if key.startswith("images.")}
    return answers, observation | ({"images": images} if images else {})


def edit(file: Path, change) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def edit_tensors(file: Path, change) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def step(data, name: str):
    return next(entry for entry in data["steps"] if entry["registry_name"] == name)


class TestEqualActions:
    @pytest.mark.parametrize("name", NAMES)
    def test_of_every_option(self, name, tmp_path):
        answers, observation = golden(name)
        meta = MetaPolicy.from_pretrained(checkpoint(name, tmp_path / name))
        chunk = meta.infer(meta.inputs(observation))
        np.testing.assert_allclose(chunk.numpy(), answers["chunk"], atol=1e-4)
        np.testing.assert_allclose(meta.predict(observation), answers["actions"], atol=1e-4)

    @pytest.mark.skipif(not SHARED.is_dir(), reason="the shared fixtures are not beside this checkout")
    def test_of_images(self):
        meta = MetaPolicy.from_pretrained(SHARED / "lerobot_act")
        with np.load(SHARED / "lerobot_act.golden.npz") as file:
            answers = dict(file)
        images = {name: answers[f"obs/observation.images.{name}"].transpose(0, 2, 3, 1) for name in ("top", "wrist")}
        observation = {"state": answers["obs/observation.state"], "images": images}
        chunk = meta.infer(meta.inputs(observation))
        np.testing.assert_allclose(chunk.numpy(), answers["normalized_chunk"], atol=1e-4)
        np.testing.assert_allclose(meta.predict(observation), answers["actions"], atol=1e-4)

    def test_the_cvae_encoder_sees_the_same_style(self, directory):
        answers, observation = golden("object")
        meta = MetaPolicy.from_pretrained(directory)
        demonstrated, is_pad = (torch.from_numpy(answers[name]) for name in ("demonstrated", "is_pad"))
        state = meta.inputs(observation)["state"]
        with torch.inference_mode():
            mean, log_variance = meta.policy.cvae_encoder(state, demonstrated, is_pad)
        np.testing.assert_allclose(mean.numpy(), answers["mean"], atol=1e-4)
        np.testing.assert_allclose(log_variance.numpy(), answers["log_variance"], atol=1e-4)

    def test_a_blind_one_would_not_see_the_environment(self, directory):
        state = MetaPolicy.from_pretrained(directory).features.state
        assert state.object_names == tuple(f"environment_state_{i}" for i in range(5))


class TestDirectories:
    def test_statistics_among_the_weights(self, directory):
        """As LeRobot wrote them before 0.4."""
        answers, observation = golden("object")
        among_the_weights(directory)
        np.testing.assert_allclose(
            MetaPolicy.from_pretrained(directory).predict(observation), answers["actions"], atol=1e-4
        )

    def test_statistics_of_several_datasets_are_its_datasets(self, directory):
        answers, observation = golden("object")
        among_the_weights(directory, datasets=("so100", "so101-red"))

        def doubled(tensors):
            for name in tensors:
                if name.startswith("unnormalize_outputs.so101-red."):
                    tensors[name] = 2 * tensors[name]

        edit_tensors(directory / "model.safetensors", doubled)
        assert load_foreign(directory).processor.dataset_names == ("so100", "so101-red")
        for dataset, factor in (("so100", 1), ("so101-red", 2)):
            meta = MetaPolicy.from_pretrained(directory, dataset=dataset)
            np.testing.assert_allclose(meta.predict(observation), factor * answers["actions"], atol=1e-4)

    @pytest.mark.parametrize("old", [True, False])
    def test_a_base_model_without_statistics(self, directory, old):
        if old:
            among_the_weights(directory)
        else:
            for file in (NORMALIZER, UNNORMALIZER):
                edit_tensors(directory / file, lambda tensors: tensors.clear() or tensors.update(x=torch.zeros(1)))
            with pytest.raises(StatisticsError, match="A base model has none: fine-tune it"):
                load_foreign(directory)
        foreign = load_foreign(directory, args={"statistics": False})
        assert load_foreign_policy(directory).policy.num_parameters() == foreign.policy.num_parameters()
        state = torch.randn(2, 8)
        assert torch.equal(foreign.processor.inputs({"state": state})["state"], state)

    def test_shapes_and_modes_in_place_of_features(self, directory):
        answers, observation = golden("object")
        among_the_weights(directory)

        def older(config):
            for side in ("input", "output"):
                features = config.pop(f"{side}_features")
                config[f"{side}_shapes"] = {key: feature["shape"] for key, feature in features.items()}
            del config["normalization_mapping"]
            config["input_normalization_modes"] = {"observation.state": "mean_std"}
            config["output_normalization_modes"] = {"action": "quantile10"}

        edit(directory / "config.json", older)
        np.testing.assert_allclose(
            MetaPolicy.from_pretrained(directory).predict(observation), answers["actions"], atol=1e-4
        )

    def test_of_a_training(self, directory, tmp_path):
        shutil.copytree(directory, tmp_path / "run" / "checkpoints" / "last" / "pretrained_model")
        assert is_foreign(tmp_path / "run")
        assert type(load_foreign(tmp_path / "run").policy) is ACTPolicy

    def test_cameras_are_called_what_observations_call_them(self, tmp_path):
        directory = pictures(tmp_path / "pictures")
        renamed = {"observation.images.front": "observation.images.top"}
        edit(
            directory / PREPROCESSOR,
            lambda data: step(data, "rename_observations_processor")["config"].update(rename_map=renamed),
        )
        assert MetaPolicy.from_pretrained(directory).required_cameras == ("front", "wrist")

    def test_each_camera_has_its_own_normalization(self, tmp_path):
        directory = pictures(tmp_path / "pictures")

        def other(tensors):
            tensors["observation.images.wrist.mean"] = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)

        edit_tensors(directory / NORMALIZER, other)
        meta = MetaPolicy.from_pretrained(directory)
        image = np.full((1, 64, 64, 3), 51, np.uint8)  # 0.2
        inputs = meta.inputs({"state": np.zeros((1, 3), np.float32), "images": {"top": image, "wrist": image}})["image"]
        expected = (0.2 - torch.tensor([[0.485, 0.456, 0.406], [0.1, 0.2, 0.3]])) / torch.tensor([0.229, 0.224, 0.225])
        torch.testing.assert_close(inputs[0, :, :, 0, 0], expected)

    def test_what_was_left_out_is_told(self, directory, tmp_path):
        edit(directory / "config.json", lambda config: config.update(temporal_ensemble_coeff=0.01, n_action_steps=1))
        told = []
        convert(directory, tmp_path / "out", tell=told.append)
        assert "vae_encoder_pos_enc" in told[0]
        assert "temporal ensembling" in told[0]
        assert "Nothing was missing" in (tmp_path / "out" / "README.md").read_text()

    def test_a_checkpoint_of_menura_is_written(self, directory, tmp_path):
        answers, observation = golden("object")
        loaded = load_checkpoint(convert(directory, tmp_path / "out"))
        actions = MetaPolicy(loaded.policy, loaded.processor).predict(observation)
        np.testing.assert_allclose(actions, answers["actions"], atol=1e-4)
        assert not is_foreign(tmp_path / "out")
        assert MetaPolicy.from_pretrained(tmp_path / "out").checkpoint_hash == loaded.hash


class TestTheWayBack:
    @pytest.mark.parametrize("name", NAMES)
    def test_there_and_back_answers_the_same(self, name, tmp_path):
        answers, observation = golden(name)
        first = load_foreign(checkpoint(name, tmp_path / name))
        written = write(first.policy, first.processor, tmp_path / "back")
        again = MetaPolicy.from_pretrained(written)
        np.testing.assert_allclose(again.predict(observation), answers["actions"], atol=1e-4)
        theirs, ours = (json.loads((path / "config.json").read_text()) for path in (FIXTURES / name, written))
        for key in ("input_features", "output_features", "pre_norm", "n_vae_encoder_layers", "vision_backbone"):
            assert ours[key] == theirs[key]
        assert set(load_file(written / "model.safetensors")) == set(load_file(tmp_path / name / "model.safetensors"))

    def test_of_a_checkpoint(self, directory, tmp_path):
        answers, observation = golden("object")
        back = convert(convert(directory, tmp_path / "ours"), tmp_path / "back", to="lerobot")
        np.testing.assert_allclose(MetaPolicy.from_pretrained(back).predict(observation), answers["actions"], atol=1e-4)

    def test_lerobot_finds_its_constants_again(self, tmp_path):
        """Their range is 0 and not its epsilon, which float32 would make another."""
        first = load_foreign(checkpoint("environment", tmp_path / "environment"))
        written = load_file(write(first.policy, first.processor, tmp_path / "back") / NORMALIZER)
        theirs = load_file(FIXTURES / "environment" / NORMALIZER)
        for name in ("min", "max"):
            torch.testing.assert_close(written[f"observation.state.{name}"], theirs[f"observation.state.{name}"])
        assert written["observation.state.min"][0] == written["observation.state.max"][0]

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile", "identity"])
    def test_every_normalization(self, kind, tmp_path):
        meta = MetaPolicy(*ours(kind))
        observation = {"state": np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)}
        observation["state"][:, 1] = 0.25  # constant
        again = MetaPolicy.from_pretrained(write(meta.policy, meta.processor, tmp_path / "back"))
        np.testing.assert_allclose(again.predict(observation), meta.predict(observation), atol=1e-4)

    def test_what_lerobot_cannot_hold(self, directory, tmp_path):
        policy, processor = ours("zscore", camera_names=["top"], backbone_norm="group")
        with pytest.raises(CheckpointError, match=r"expected a ResNet .* with frozen batch norms, got group norms\."):
            write(policy, processor, tmp_path / "back")
        policy, processor = ours("zscore", env_state_dim=0)
        with pytest.raises(CheckpointError, match="expected a camera or env_state_dim"):
            write(policy, processor, tmp_path / "back")
        policy, processor = ours("zscore", camera_names=["top"], image_size=[32, 32], backbone_norm="frozen_batch")
        with pytest.raises(CheckpointError, match=r"got images of top resized to \(32, 32\)"):
            write(policy, processor, tmp_path / "back")
        with pytest.raises(CheckpointError, match="expected a new or empty directory"):
            write(*ours("zscore"), directory)
        assert not (tmp_path / "back").exists()


def config_with(**options):
    return lambda path: edit(path / "config.json", lambda config: config.update(options))


def config_without(name):
    return lambda path: edit(path / "config.json", lambda config: config.pop(name))


def step_with(name, file=PREPROCESSOR, **options):
    return lambda path: edit(path / file, lambda data: step(data, name)["config"].update(options))


def new_step(name, **config):
    entry = {"registry_name": name, "config": config}
    return lambda path: edit(path / PREPROCESSOR, lambda data: data["steps"].append(entry))


def weights_with(name, value):
    return lambda path: edit_tensors(path / "model.safetensors", lambda tensors: tensors.update({name: value}))


def weights_without(name):
    return lambda path: edit_tensors(path / "model.safetensors", lambda tensors: tensors.pop(name))


def statistics_with(name, value):
    return lambda path: edit_tensors(path / NORMALIZER, lambda tensors: tensors.update({name: value}))


def feature(kind, *shape):
    return {"type": kind, "shape": list(shape)}


REFUSED = {
    "unknown policy": (config_with(type="actt"), "expected a policy of act, .* got 'actt'; did you mean act"),
    "no type": (
        lambda path: edit(path / "config.json", lambda config: config.update(input_shapes={}) or config.pop("type")),
        "expected 'type', the kind of policy, got nothing",
    ),
    "unknown option": (config_with(use_flow=True), "expected options that the converter of act knows, got use_flow"),
    "missing option": (config_without("dim_model"), "expected 'dim_model', got nothing"),
    "several observations": (config_with(n_obs_steps=2), "expected n_obs_steps 1, got 2: ACT sees one"),
    "adapters": (config_with(use_peft=True), "expected whole weights, got use_peft"),
    "another backbone": (config_with(vision_backbone="resnet5"), "vision_backbone of resnet18, .* got 'resnet5'"),
    "reward": (
        config_with(input_features={"observation.state": feature("STATE", 3), "next.reward": feature("REWARD", 1)}),
        "got 'next.reward' of type REWARD",
    ),
    "another vector": (
        config_with(input_features={"observation.effort": feature("STATE", 3)}),
        "got 'observation.effort' of type STATE",
    ),
    "no action": (config_with(output_features={}), "expected the output 'action' alone, got"),
    "features of another form": (config_with(input_features={"a": [3]}), "expected {key: {type, shape}}"),
    "missing tensor": (weights_without("model.action_head.bias"), "action_head.bias|missing keys"),
    "left over": (weights_with("model.extra.weight", torch.zeros(2)), "got model.extra.weight left over"),
    "another part of a layer": (
        weights_with("model.encoder.layers.0.norm9.weight", torch.zeros(2)),
        "got the tensor 'norm9.weight'",
    ),
    "another width": (
        weights_with("model.action_head.bias", torch.zeros(9)),
        r"expected \(4,\) numbers for ACTPolicy's action_head\.bias, .* got \(9,\)",
    ),
    "another layer": (config_with(n_encoder_layers=3), r"expected tensors model\.encoder\.layers\.2\.…, got none"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "model.safetensors: expected this file"),
    "damaged weights": (
        lambda path: (path / "model.safetensors").write_bytes(b"x" * 99),
        "expected a safetensors file, got",
    ),
    "damaged config": (lambda path: (path / "config.json").write_text('{"type": '), "config.json"),
    "half of the processors": (
        lambda path: (path / "policy_postprocessor.json").unlink(),
        "policy_postprocessor.json: expected this file beside the other",
    ),
    "no steps": (lambda path: (path / PREPROCESSOR).write_text("{}"), "expected LeRobot's list of steps"),
    "a file elsewhere": (
        lambda path: edit(
            path / PREPROCESSOR, lambda data: step(data, "normalizer_processor").update(state_file="../x.safetensors")
        ),
        "expected the name of a file beside the config, got '../x.safetensors'",
    ),
    "unknown step": (new_step("crop_processor"), "expected processor steps of .* got 'crop_processor'"),
    "relative actions": (new_step("relative_actions_processor", enabled=True), "expected absolute actions"),
    "two normalizers": (new_step("normalizer_processor"), "expected one step normalizer_processor, got 2"),
    "unknown mode": (
        step_with("normalizer_processor", norm_map={"STATE": "MEAN_STDD"}),
        "expected a normalization of IDENTITY, .* got 'MEAN_STDD' for STATE",
    ),
}
WRONG_STATISTICS = {
    "missing": (
        lambda path: edit_tensors(path / NORMALIZER, lambda tensors: tensors.pop("observation.state.std")),
        "expected std of 'observation.state' in dataset 'lerobot' for MEAN_STD",
    ),
    "of one of several datasets": (
        lambda path: edit_tensors(
            path / UNNORMALIZER,
            lambda tensors: [tensors.update({f"so100.buffer.{name}": tensors.pop(name)}) for name in list(tensors)],
        ),
        "expected q10, q90 of 'action' in dataset 'so100'",
    ),
    "width": (statistics_with("observation.state.mean", torch.zeros(2)), "mean: expected 3 numbers, got 2"),
    "not finite": (
        statistics_with("observation.state.std", torch.tensor([1.0, torch.inf, 1.0])),
        "std: expected finite numbers, got inf in dimension 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, directory):
    change, message = REFUSED[name]
    change(directory)
    with pytest.raises(CheckpointError, match=message):
        load_foreign(directory, origin="lerobot")


@pytest.mark.parametrize("name", WRONG_STATISTICS)
def test_wrong_statistics(name, directory):
    change, message = WRONG_STATISTICS[name]
    change(directory)
    with pytest.raises(StatisticsError, match=message):
        load_foreign(directory)


def test_relative_actions_that_are_off_do_not_matter(directory):
    new_step("relative_actions_processor", enabled=False)(directory)
    load_foreign(directory)


def test_wrong_arguments(directory, tmp_path):
    with pytest.raises(CheckpointError, match="expected none for a LeRobot policy"):
        load_foreign(directory, args={"n_heads": 4})
    with pytest.raises(
        CheckpointError, match=r"from: expected one of lerobot, .* got 'lerobott'; did you mean lerobot"
    ):
        load_foreign(directory, origin="lerobott")
    with pytest.raises(CheckpointError, match="to: expected one of menura, lerobot, got 'onnx'"):
        convert(directory, tmp_path / "out", to="onnx")
    with pytest.raises(CheckpointError, match="got no such file or directory"):
        load_foreign(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"expected a checkpoint of lerobot, .* got none of them"):
        load_foreign(tmp_path / "empty")
    edit(directory / "config.json", lambda config: config.update(n_heads=5))
    with pytest.raises(ConfigError, match="multiple of n_heads"):
        load_foreign(directory)


def test_two_cameras_of_different_sizes(tmp_path):
    directory = pictures(tmp_path / "pictures")
    edit(
        directory / "config.json",
        lambda config: config["input_features"]["observation.images.wrist"].update(shape=[3, 8, 8]),
    )
    with pytest.raises(CheckpointError, match=r"expected cameras of one size .* observation\.images\.wrist 8 × 8"):
        load_foreign(directory)


def among_the_weights(directory: Path, datasets: tuple[str, ...] = ("",)) -> None:
    """Move the statistics of the processors into the weights, as LeRobot had them before 0.4."""
    parts = {
        "normalize_inputs": load_file(directory / NORMALIZER),
        "unnormalize_outputs": load_file(directory / UNNORMALIZER),
    }
    tensors = load_file(directory / "model.safetensors")
    for head, statistics in parts.items():
        for name, value in statistics.items():
            key, _, statistic = name.rpartition(".")
            if (key == "action") == (head == "unnormalize_outputs"):
                for dataset in datasets:
                    prefix = f"{head}.{dataset}." if dataset else f"{head}."
                    tensors[f"{prefix}buffer_{key.replace('.', '_')}.{statistic}"] = value.clone()
    save_file(tensors, directory / "model.safetensors")
    for file in (*directory.glob("policy_p*"),):
        file.unlink()


def ours(kind: str, **args):
    """A policy of Menura's own with statistics, one dimension of which is constant."""
    from menura.config.schema import ProcessorConfig
    from menura.data.statistics import compute_statistics
    from menura.processing.processor import Processor

    small = {"hidden_size": 16, "n_heads": 2, "feedforward_size": 16, "n_encoder_layers": 1, "latent_dim": 2}
    args = {"state_dim": 3, "env_state_dim": 2, "action_dim": 2, "chunk_size": 4, "n_action_steps": 2, **small, **args}
    cameras = {name: CameraFeature(64, 64) for name in args.get("camera_names", [])}
    if cameras:
        args = {"image_size": [64, 64], "backbone_widths": [64, 128, 256, 512], **args}
    torch.manual_seed(0)
    policy = ACTPolicy(ACTPolicyConfig(**args)).eval()
    state, action = (VectorFeature.of_width(dim, name) for name, dim in (("state", 3), ("action", 2)))
    rows = np.random.default_rng(1).normal(2, 3, size=(50, 3))
    rows[:, 1] = 0.25
    statistics = {"only": {"state": compute_statistics(rows), "action": compute_statistics(rows[:, :2])}}
    processor = Processor.build(
        ProcessorConfig(state=kind, action=kind), Features(state, action, cameras), statistics, policy.config
    )
    return policy, processor


def pictures(directory: Path) -> Path:
    """A LeRobot directory of two cameras, written by Menura."""
    args = {
        "camera_names": ["top", "wrist"],
        "image_size": [64, 64],
        "backbone_norm": "frozen_batch",
        "env_state_dim": 1,
    }
    policy, processor = ours("zscore", **args)
    return write(policy, processor, directory)


def test_what_lies_at_the_output_is_not_thrown_away_and_found_before_anything_is_read(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(CheckpointError, match=r"thesis: expected a new directory .* 'chapter.tex'"):
        convert(tmp_path / "nothing", tmp_path / "thesis")


def test_a_checkpoint_of_menura_is_told_what_to_do_with_it(directory, tmp_path):
    ours = convert(directory, tmp_path / "ours")
    with pytest.raises(CheckpointError, match=r"got one of Menura's own. --to lerobot goes the other way"):
        convert(ours, tmp_path / "again")
    assert [result.ok for result in check_run(ours)] == [True, True, True]
