"""The processor: what it accepts, what it makes of it, and that it comes back from disk the same."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from menura.config.schema import ProcessorConfig
from menura.errors import CheckpointError, ContractError, FeatureMismatch, StatisticsError
from menura.features import CameraFeature, Features, VectorFeature
from menura.processing.images import resize_images
from menura.processing.normalizer import Rows
from menura.processing.processor import Processor

FEATURES = Features(
    state=VectorFeature(("x", "y", "cube"), object_names=("cube",)),
    action=VectorFeature(("dx", "dy")),
    cameras={"top": CameraFeature(24, 32), "wrist": CameraFeature(24, 32)},
    fps=10.0,
    language=True,
)
CONFIG = ProcessorConfig(action="minmax")


def statistics(width: int, seed: int = 0) -> Rows:
    data = np.random.default_rng(seed).normal(1.0, 2.0, (200, width))
    q01, q99 = np.quantile(data, (0.01, 0.99), axis=0)
    return Rows(data.mean(0), data.std(0), data.min(0), data.max(0), q01, q99)


STATISTICS = {"demos": {"state": statistics(3), "action": statistics(2)}}


def build(
    features: Features = FEATURES, config: Any = CONFIG, statistics: Any = STATISTICS, **values: Any
) -> Processor:
    keywords = {
        key: values.pop(key) for key in ("blind", "uses", "image_encoder", "image_encoder_spec") if key in values
    }
    policy_config = SimpleNamespace(**({"image_size": (12, 16)} | values))
    return Processor.build(config, features, statistics, policy_config, **keywords)


def observation(rows: int = 2, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    made: dict[str, Any] = {
        "state": rng.normal(1, 2, (rows, 3)).astype(np.float32),
        "images": {name: rng.integers(0, 256, (rows, 24, 32, 3), dtype=np.uint8) for name in ("top", "wrist")},
        "task": ["push"] * rows,
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


class TestPrepare:
    def test_gives_what_the_loader_gives(self) -> None:
        raw = observation()
        batch = build().prepare(raw)
        assert set(batch) == {"state", "image", "task"}
        assert batch["state"].shape == (2, 3)
        assert batch["state"].dtype == torch.float32
        assert batch["image"].shape == (2, 2, 12, 16, 3)
        assert batch["image"].dtype == torch.uint8
        for index, camera in enumerate(("top", "wrist")):
            assert np.array_equal(batch["image"][:, index], resize_images(raw["images"][camera], (12, 16)))

    def test_cameras_come_in_the_policys_order_and_no_others(self) -> None:
        raw = observation()
        batch = build(camera_names=["wrist"]).prepare(raw)
        assert np.array_equal(batch["image"][:, 0], resize_images(raw["images"]["wrist"], (12, 16)))
        both = build(camera_names=["wrist", "top"]).prepare(raw)
        assert torch.equal(both["image"][:, 0], batch["image"][:, 0])

    def test_float_images_are_the_same_as_their_pixels(self) -> None:
        raw = observation()
        floats = {name: (image / 255).astype(np.float32) for name, image in raw["images"].items()}
        assert torch.equal(build().prepare(raw)["image"], build().prepare(observation(images=floats))["image"])

    def test_several_observations_have_a_time_axis(self) -> None:
        rng = np.random.default_rng(0)
        images = {name: rng.integers(0, 256, (2, 3, 24, 32, 3), dtype=np.uint8) for name in ("top", "wrist")}
        batch = build(n_obs_steps=3).prepare(observation(state=np.zeros((2, 3, 3)), images=images))
        assert batch["state"].shape == (2, 3, 3)
        assert batch["image"].shape == (2, 3, 2, 12, 16, 3)
        assert build(observation_offsets=(-4, 0)).observation_steps == 2

    def test_what_the_policy_does_not_read_is_not_asked_for(self) -> None:
        assert set(build(uses=("state", "actions")).prepare({"state": np.zeros((2, 3))})) == {"state"}
        assert build(uses=("state",)).camera_names == ()
        assert set(build(uses=("image",)).prepare(observation(state=None, task=None))) == {"image"}

    def test_one_instruction_serves_all_rows(self) -> None:
        assert build().prepare(observation(task="push"))["task"] == ["push", "push"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"state": None}, r"expected 'state' \(B, 3\), got \['images', 'task'\]"),
            ({"state": np.zeros((2, 4))}, r"state: expected shape \(B, 3\), got \(2, 4\)"),
            ({"state": np.zeros(3)}, r"Add the batch axis: state\[None\]"),
            ({"state": np.array([[0, np.nan, 0]] * 2)}, "got 'y' not finite in row 0"),
            ({"state": np.array([[0, 0, np.inf]] * 2)}, "got 'cube' not finite"),
            ({"state": np.array([["a", "b", "c"]])}, "state: expected float32, got <U1"),
            ({"state": np.zeros((2, 3), bool)}, "state: expected float32, got bool"),
            ({"images": None}, r"images: expected cameras \['top', 'wrist'\], got nothing"),
            ({"images": np.zeros((2, 24, 32, 3))}, "got ndarray"),
            (
                {"images": {"top": np.zeros((2, 9, 9, 3), np.uint8), "wirst": np.zeros((2, 9, 9, 3), np.uint8)}},
                "expected camera 'wrist', got .*did you mean wirst",
            ),
            ({"images": {"top": np.zeros((2, 9, 9, 3), np.int32), "wrist": 0}}, "expected uint8, or float32"),
            ({"images": {"top": np.full((2, 9, 9, 3), 200.0)}}, "in .0, 1., got values in .200, 200.* as uint8"),
            ({"images": {"top": np.full((2, 9, 9, 3), np.nan)}}, "got values in .nan, nan"),
            ({"images": {"top": np.zeros((2, 3, 9, 9), np.uint8)}}, r"\(B, H, W, 3\), got .* Put the colours last"),
            ({"images": {"top": np.zeros((9, 9, 3), np.uint8)}}, r"Add the batch axis: image\[None\]"),
            ({"task": None}, 'Add "task"'),
            ({"task": [1, 2]}, "a text for each row"),
            ({"task": ["push"]}, "the same number of rows everywhere"),
            ({"image": 1}, "got 'image'; did you mean images"),
        ],
    )
    def test_what_is_wrong_is_named(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(FeatureMismatch, match=message):
            build().prepare(observation(**changes))

    def test_cameras_of_different_rows(self) -> None:
        images = {"top": np.zeros((2, 9, 9, 3), np.uint8), "wrist": np.zeros((1, 9, 9, 3), np.uint8)}
        with pytest.raises(FeatureMismatch, match="the same number of rows everywhere"):
            build().prepare(observation(images=images))

    def test_the_observation_is_not_changed(self) -> None:
        raw = observation()
        before = {"state": raw["state"].copy(), "top": raw["images"]["top"].copy()}
        processor = build(image_size=None)
        processor.inputs(processor.prepare(raw))
        assert np.array_equal(raw["state"], before["state"])
        assert np.array_equal(raw["images"]["top"], before["top"])


class TestInputs:
    def test_numbers(self) -> None:
        raw = observation()
        processor = build(image_normalize="imagenet")
        inputs = processor.inputs(processor.prepare(raw))
        of_state = STATISTICS["demos"]["state"]
        np.testing.assert_allclose(inputs["state"], (raw["state"] - of_state.mean) / of_state.std, rtol=1e-5, atol=1e-5)
        small = resize_images(raw["images"]["top"], (12, 16))
        expected = (small / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        assert inputs["image"].shape == (2, 2, 3, 12, 16)
        np.testing.assert_allclose(inputs["image"][:, 0], np.moveaxis(expected, -1, 1), rtol=1e-4, atol=1e-5)

    def test_training_and_inference_are_the_same(self) -> None:
        """A batch as the loader gives it and a raw observation of the same frames become the same tensors."""
        raw, processor = observation(), build()
        loader = {
            "state": torch.from_numpy(raw["state"]),
            "image": torch.from_numpy(
                np.stack([resize_images(raw["images"][name], (12, 16)) for name in ("top", "wrist")], 1)
            ),
            "actions": torch.zeros(2, 4, 2),
            "is_pad": torch.zeros(2, 4, dtype=torch.bool),
            "task": ["push", "push"],
            "dataset_id": torch.zeros(2, dtype=torch.int64),
        }
        trained, inferred = processor.inputs(loader), processor.inputs(processor.prepare(raw))
        for key in ("state", "image"):
            assert torch.equal(trained[key], inferred[key])
        assert trained["is_pad"] is loader["is_pad"]

    def test_actions_come_back(self) -> None:
        processor, actions = build(), torch.randn(5, 4, 2)
        normalized = processor.inputs({"actions": actions})["actions"]
        torch.testing.assert_close(processor.actions(normalized), actions)
        torch.testing.assert_close(processor.actions(normalized[:, 0]), actions[:, 0])
        assert processor.actions(normalized.to(torch.bfloat16)).dtype == torch.float32

    def test_each_row_uses_its_datasets_statistics(self) -> None:
        data = {name: {"state": statistics(3, i), "action": statistics(2, i)} for i, name in enumerate(("one", "two"))}
        processor = build(statistics=data)
        state, ids = torch.randn(4, 3), torch.tensor([1, 0, 1, 1])
        got = processor.inputs({"state": state, "dataset_id": ids})["state"]
        for row, index in enumerate(ids):
            alone = build(statistics={"only": list(data.values())[index]})
            torch.testing.assert_close(got[row], alone.inputs({"state": state[row : row + 1]})["state"][0])

    def test_images_are_divided_by_255_once_only(self) -> None:
        with pytest.raises(FeatureMismatch, match=r"image: expected a uint8 tensor .* got torch\.float32"):
            build().inputs({"image": torch.zeros(1, 2, 12, 16, 3)})
        with pytest.raises(FeatureMismatch, match=r"expected cameras \['top', 'wrist'\], got 1"):
            build().inputs({"image": torch.zeros(1, 1, 12, 16, 3, dtype=torch.uint8)})

    def test_the_batch_is_not_changed(self) -> None:
        processor = build(blind=True)
        batch = processor.prepare(observation())
        batch["state"] = torch.ones(2, 3)
        batch["image"] = torch.ones(2, 2, 12, 16, 3, dtype=torch.uint8)
        processor.inputs(batch)
        assert (batch["state"] == 1).all()
        assert (batch["image"] == 1).all()


class TestBlind:
    def test_hides_the_object_and_the_pixels_in_training_and_inference(self) -> None:
        processor, seeing = build(blind=True), build()
        assert processor.required_cameras == ()
        inferred = processor.inputs(processor.prepare(observation(images=None)))
        trained = processor.inputs(seeing.prepare(observation()))
        for inputs in (inferred, trained):
            assert inputs["image"].shape == (2, 2, 3, 12, 16)
            assert (inputs["image"] == 0).all()
            assert (inputs["state"][:, 2] == 0).all()
            assert torch.equal(inputs["state"][:, :2], seeing.inputs(seeing.prepare(observation()))["state"][:, :2])


class Encoder(torch.nn.Module):
    feature_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.dim() == 4
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        return self.layer(pixels.mean((-1, -2)))


class TestImageEncoder:
    SPEC = {"class": "Encoder", "args": {}}  # noqa: RUF012

    def make(self, **values: Any) -> Processor:
        return build(image_encoder=Encoder(), image_encoder_spec=self.SPEC, image_normalize="imagenet", **values)

    def test_features_of_the_cameras_in_order(self) -> None:
        processor = self.make()
        batch = processor.prepare(observation())
        inputs = processor.inputs(batch)
        assert inputs["image"] is inputs["image_features"]
        assert inputs["image"].shape == (2, 8)
        pixels = batch["image"][:, 1].permute(0, 3, 1, 2) / 255
        torch.testing.assert_close(inputs["image"][:, 4:], processor.image_encoder(pixels))
        assert not inputs["image"].requires_grad

    def test_with_a_time_axis(self) -> None:
        features = self.make(n_obs_steps=3).encode_images(torch.zeros(2, 3, 2, 12, 16, 3, dtype=torch.uint8))
        assert features.shape == (2, 3, 8)

    def test_features_of_the_store_pass(self) -> None:
        processor, stored = self.make(), torch.randn(2, 8)
        inputs = processor.inputs({"image_features": stored})
        assert torch.equal(inputs["image"], stored)
        assert (self.make(blind=True).inputs({"image_features": stored})["image"] == 0).all()

    def test_comes_back_from_disk(self, tmp_path: Path) -> None:
        processor = self.make()
        processor.save_pretrained(tmp_path)
        loaded = Processor.from_pretrained(tmp_path, image_encoder=Encoder())
        batch = processor.prepare(observation())
        assert torch.equal(loaded.inputs(batch)["image"], processor.inputs(batch)["image"])
        with pytest.raises(ContractError, match="image_encoder: expected"):
            Processor.from_pretrained(tmp_path)

    def test_an_encoder_needs_its_specification(self) -> None:
        for given in ({"image_encoder": Encoder()}, {"image_encoder_spec": self.SPEC}):
            with pytest.raises(ContractError, match="with its specification, or neither"):
                build(**given)

    def test_a_policy_without_images_has_no_encoder(self) -> None:
        assert self.make(uses=("state",)).image_encoder is None

    def test_an_encoder_of_another_width_is_refused(self) -> None:
        processor = self.make()
        processor.image_encoder.feature_dim = 5
        with pytest.raises(ContractError, match=r"Encoder: expected features of shape \(4, 5\) \(feature_dim\), got"):
            processor.inputs(processor.prepare(observation()))


class TestBuild:
    @pytest.mark.parametrize(
        ("statistics", "message"),
        [
            ({"demos": {"action": statistics(2)}}, "state statistics of dataset 'demos': expected them, got nothing"),
            ({"demos": {"state": statistics(3)}}, "action statistics of dataset 'demos'"),
            ({"demos": {"state": statistics(2), "action": statistics(2)}}, "state statistics: expected width 3"),
            ({}, "at least one dataset"),
        ],
    )
    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile", "identity"])
    def test_refuses_statistics_that_do_not_fit(self, statistics: Any, message: str, kind: str) -> None:
        config = ProcessorConfig(state=kind, action=kind)
        with pytest.raises(StatisticsError, match=message):
            build(statistics=statistics, config=config)

    def test_cameras_that_are_not_there(self) -> None:
        with pytest.raises(FeatureMismatch, match="got 'tpo'; did you mean top"):
            build(camera_names=["tpo"])

    def test_the_size_is_that_of_the_cameras_when_nobody_says(self) -> None:
        assert build(image_size=None).image_size == (24, 32)
        assert build(image_size=20).image_size == (20, 20)
        cameras = {"top": CameraFeature(24, 32), "wrist": CameraFeature(10, 10)}
        with pytest.raises(FeatureMismatch, match="expected one size for"):
            build(features=Features(FEATURES.state, FEATURES.action, cameras), image_size=None)

    def test_without_state(self) -> None:
        for none in (None, VectorFeature(())):
            features = Features(none, FEATURES.action, FEATURES.cameras)
            processor = build(features=features, statistics={"demos": {"action": statistics(2)}})
            assert set(processor.prepare(observation(state=None))) == {"image", "task"}


class TestDisk:
    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"image_normalize": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 2.0]}},
            {"image_normalize": [[0.1, 0.2, 0.3], [1.0, 1.0, 2.0]], "n_obs_steps": 2},
            {"uses": ("state",), "blind": True},
        ],
    )
    def test_comes_back_equal(self, tmp_path: Path, values: dict[str, Any]) -> None:
        config = ProcessorConfig(action="minmax", state_mask=[True, False, True], resize="pad")
        processor = build(config=config, **values)
        processor.save_pretrained(tmp_path)
        loaded = Processor.from_pretrained(tmp_path)
        assert loaded.settings == processor.settings
        batch = {"state": torch.randn(3, 3), "actions": torch.randn(3, 2)}
        if processor.observation_steps == 1:
            for key, value in processor.inputs(batch).items():
                assert torch.equal(value, loaded.inputs(batch)[key])

    def test_is_readable_and_no_pickle(self, tmp_path: Path) -> None:
        build().save_pretrained(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"processor_config.json", "normalizer.safetensors"}
        text = json.loads((tmp_path / "processor_config.json").read_text())
        assert text["camera_names"] == ["top", "wrist"]
        assert text["features"]["state"]["names"] == ["x", "y", "cube"]

    def test_missing_files_are_never_a_pass_through(self, tmp_path: Path) -> None:
        build().save_pretrained(tmp_path)
        (tmp_path / "normalizer.safetensors").unlink()
        with pytest.raises(StatisticsError, match=r"normalizer\.safetensors: expected the dataset's statistics"):
            Processor.from_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"processor_config\.json"):
            Processor.from_pretrained(tmp_path / "nowhere")

    def test_the_parents_statistics_are_not_looked_at(self, tmp_path: Path) -> None:
        build().save_pretrained(tmp_path)
        inner = tmp_path / "checkpoint-1"
        inner.mkdir()
        (tmp_path / "processor_config.json").rename(inner / "processor_config.json")
        with pytest.raises(StatisticsError):
            Processor.from_pretrained(inner)


class TestSpaces:
    """Actions as differences from the state; the whole way is in tests/training/test_spaces.py."""

    FEATURES = Features(
        state=VectorFeature(("x", "y", "load")), action=VectorFeature(("y", "x")), fps=10.0, control_type="abs"
    )

    def build(self, **values: Any) -> Processor:
        return build(self.FEATURES, ProcessorConfig(action_type="relative"), **values)

    def test_actions_are_added_to_the_newest_state(self) -> None:
        for steps in (1, 2):
            processor = self.build(n_obs_steps=steps)
            states = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)
            raw = {"state": states if steps == 2 else states[:, 1]}
            trained = torch.randn(3, 4, 2)
            physical = processor.actions(processor.action_normalizer.normalize(trained), observation=raw)
            expected = trained.numpy() + states[:, 1, None][:, :, [1, 0]]
            np.testing.assert_allclose(physical.numpy(), expected, atol=1e-5)

    @pytest.mark.parametrize("action_type", ["recorded", "relative", "delta"])
    def test_physical_actions_are_encoded_as_they_are_decoded(self, action_type: Any) -> None:
        processor = build(self.FEATURES, ProcessorConfig(action_type=action_type), n_obs_steps=2)
        raw = {"state": np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)}
        trained = torch.randn(3, 4, 2)
        physical = processor.actions(trained, observation=raw).numpy()
        again = processor.encode_actions(physical, observation=raw)
        torch.testing.assert_close(again, trained, atol=1e-5, rtol=1e-5)

    def test_actions_are_encoded_where_they_stand_in_a_layout(self) -> None:
        layout = Features(None, VectorFeature(("x", "y", "z")), fps=10.0)
        own = [Features(None, VectorFeature(names), fps=10.0) for names in (("z", "x"), ("x", "y", "z"))]
        nothing = Rows(*(np.array([1.0, 0.0, 1.0]) * value for value in (0, 1, -2, 2, -2, 2)))  # of y
        processor = Processor.build(
            ProcessorConfig(), layout, {"one": {"action": nothing}, "two": {"action": statistics(3)}},
            SimpleNamespace(), uses=(), dataset_features=own,
        )  # fmt: skip
        for dataset in (0, 1):
            physical = np.random.default_rng(dataset).normal(size=(2, 4, len(own[dataset].action.names)))
            encoded = processor.encode_actions(physical.astype(np.float32), dataset)
            assert encoded.shape == (2, 4, 3)
            np.testing.assert_allclose(processor.actions(encoded, dataset), physical, atol=1e-5)
        assert not processor.encode_actions(np.ones((2, 4, 2), np.float32), 0)[..., 1].any()

    def test_a_state_is_required_and_checked(self) -> None:
        processor = self.build()
        with pytest.raises(FeatureMismatch, match="expected 'state'"):
            processor.actions(torch.zeros(1, 4, 2))
        with pytest.raises(FeatureMismatch, match="finite"):
            processor.actions(torch.zeros(1, 4, 2), observation={"state": np.full((1, 3), np.nan)})

    def test_a_policy_must_see_now(self) -> None:
        with pytest.raises(FeatureMismatch, match="expected 0, the observation that actions refer to"):
            self.build(observation_offsets=(-4, -2))

    def test_it_comes_back_from_disk(self, tmp_path: Path) -> None:
        config = ProcessorConfig(
            action_type="delta", action_reference={"y": "x"}, absolute_names=["x"], action="identity"
        )
        processor = build(self.FEATURES, config)
        processor.save_pretrained(tmp_path)
        again = Processor.from_pretrained(tmp_path)
        assert again.settings == processor.settings
        raw = {"state": np.ones((1, 3), np.float32)}
        actions = again.actions(torch.ones(1, 3, 2), observation=raw)
        assert actions.tolist() == [[[2, 1], [3, 1], [4, 1]]]
