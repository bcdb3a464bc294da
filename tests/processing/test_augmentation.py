"""Augmentations: what they change and what they leave, and that they are a function of the seed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from menura.components import BUILT_IN, load
from menura.errors import ConfigError, ContractError
from menura.processing.augmentation.base import Augmentations, Draw
from menura.processing.augmentation.images import ColorJitter, Cutout, GaussianBlur, RandomCrop, RandomShift
from menura.processing.augmentation.vectors import ActionNoise, StateNoise
from menura.processing.images import ImageNormalization

PLAIN = ImageNormalization.parse("zero_one")


def batch(
    rows: int = 3, steps: int | None = None, cameras: int = 2, size: tuple[int, int] = (20, 24)
) -> dict[str, Any]:
    """A processed batch with smooth pictures."""
    generator = torch.Generator().manual_seed(0)
    time = () if steps is None else (steps,)
    coarse = torch.rand(rows * (steps or 1) * cameras, 3, 4, 4, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return {
        "image": image.reshape(rows, *time, cameras, 3, *size),
        "state": torch.randn(rows, *time, 5, generator=generator),
        "actions": torch.randn(rows, 7, 2, generator=generator),
        "is_pad": torch.zeros(rows, 7, dtype=torch.bool),
        "task": ["push"] * rows,
    }


def every() -> list[Any]:
    return [load("augmentation", name, Path.cwd())() for name in BUILT_IN["augmentation"]]


def draw(*seed: int) -> Draw:
    return Draw(seed or (0,), torch.device("cpu"))


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("name", BUILT_IN["augmentation"])
def test_changes_its_own_values_alone_and_nothing_in_place(name: str, steps: int | None) -> None:
    before, augmentation = batch(steps=steps), every()[list(BUILT_IN["augmentation"]).index(name)]
    kept = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in before.items()}
    after = augmentation(before, draw())
    own = {"StateNoise": "state", "ActionNoise": "actions"}.get(name, "image")
    for key, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, kept[key])
            assert torch.equal(after[key], value) == (key != own)
            assert after[key].shape == value.shape
            assert after[key].dtype == value.dtype
    if own == "image":
        assert after["image"].min() >= -1e-6
        assert after["image"].max() <= 1 + 1e-6


@settings(max_examples=20, deadline=None)
@given(seed=st.lists(st.integers(0, 2**31), min_size=1, max_size=4))
def test_a_function_of_the_seed(seed: list[int]) -> None:
    augment = Augmentations(every(), PLAIN)
    first, again, other = augment(batch(), seed), augment(batch(), seed), augment(batch(), [*seed, 1])
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["state"], again["state"])
    assert not torch.equal(first["image"], other["image"])


def test_the_frames_of_a_window_change_alike_and_cameras_and_rows_do_not() -> None:
    still = batch(rows=2, steps=3, cameras=2)
    still["image"] = still["image"][:1, :1, :1].expand_as(still["image"]).contiguous()
    for augmentation in (
        RandomShift(),
        RandomCrop(0.5),
        ColorJitter(),
        GaussianBlur(probability=1.0),
        Cutout((0.3, 0.5), 1.0),
    ):
        image = augmentation(still, draw())["image"]
        assert torch.equal(image[:, 0], image[:, 2])
        assert not torch.equal(image[0], image[1])
        assert not torch.equal(image[:, :, 0], image[:, :, 1])


def test_shift_moves_by_whole_pixels() -> None:
    given_ = batch(rows=8, cameras=1)
    shifted = RandomShift(3)(given_, draw())["image"][:, 0]
    padded = torch.nn.functional.pad(given_["image"][:, 0], (3,) * 4, mode="replicate")
    for picture, source in zip(shifted, padded, strict=True):
        places = [
            (dy, dx)
            for dy in range(7)
            for dx in range(7)
            if torch.equal(picture, source[:, dy : dy + 20, dx : dx + 24])
        ]
        assert places


def test_a_whole_crop_and_still_colours_change_nothing() -> None:
    given_ = batch()
    for augmentation in (
        RandomCrop((1.0, 1.0)),
        ColorJitter(0, 0, 0, 0),
        Cutout(probability=0.0),
        GaussianBlur(probability=0.0),
    ):
        torch.testing.assert_close(augmentation(given_, draw())["image"], given_["image"], atol=2e-5, rtol=0)


def test_colours_change_as_their_names_say() -> None:
    given_ = batch(rows=1, cameras=1)
    given_["image"] = given_["image"] * 0.4 + 0.3  # no value near the ends, where it would be cut off
    grey = torch.tensor([0.299, 0.587, 0.114])[:, None, None]

    def luma(image: torch.Tensor) -> torch.Tensor:
        return (image[0, 0] * grey).sum(0)

    bright = ColorJitter(0.2, 0, 0, 0)(given_, draw())["image"]
    ratio = bright / given_["image"]
    assert ratio.std() < 1e-4
    contrast = ColorJitter(0, 0.5, 0, 0)(given_, draw())["image"]
    torch.testing.assert_close(luma(contrast).mean(), luma(given_["image"]).mean())
    saturated = ColorJitter(0, 0, 0.5, 0)(given_, draw())["image"]
    torch.testing.assert_close(luma(saturated), luma(given_["image"]))
    turned = ColorJitter(0, 0, 0, 0.1)(given_, draw())["image"]
    torch.testing.assert_close(turned.mean(2), given_["image"].mean(2))
    assert not torch.allclose(turned, given_["image"], atol=1e-3)


def test_blur_keeps_the_mean_and_lessens_the_edges() -> None:
    given_ = batch(rows=1, cameras=1)
    given_["image"] = (given_["image"] > 0.5).float()
    blurred = GaussianBlur((1.0, 2.0), probability=1.0)(given_, draw())["image"]
    assert abs(blurred.mean() - given_["image"].mean()) < 0.02
    assert blurred.diff(dim=-1).abs().max() < given_["image"].diff(dim=-1).abs().max() * 0.6


def test_cutout_covers_the_share_it_should() -> None:
    given_ = batch(rows=64, cameras=1, size=(40, 40))
    covered = (Cutout((0.5, 0.5), probability=1.0)(given_, draw())["image"] != given_["image"]).any(2).float()
    assert covered.mean((-1, -2)).min() > 0.2
    assert covered.mean((-1, -2)).max() < 0.3
    some = (Cutout((0.5, 0.5), probability=0.5)(given_, draw())["image"] != given_["image"]).flatten(1).any(1).float()
    assert 0.25 < some.mean() < 0.75


def test_noise_has_its_deviation_and_spares_what_is_not_there() -> None:
    given_ = batch(rows=4000)
    noise = StateNoise(0.3)(given_, draw())["state"] - given_["state"]
    assert abs(noise.std() - 0.3) < 0.01
    given_["state_mask"] = torch.tensor([True, False, True, True, True]).expand(4000, -1)
    given_["action_mask"] = torch.tensor([False, True]).expand(4000, -1)
    assert torch.equal(StateNoise(0.3)(given_, draw())["state"][:, 1], given_["state"][:, 1])
    actions = ActionNoise(0.3)(given_, draw())["actions"]
    assert torch.equal(actions[..., 0], given_["actions"][..., 0])
    assert not torch.equal(actions[..., 1], given_["actions"][..., 1])


def test_normalized_images_are_changed_in_their_own_colours() -> None:
    plain = batch()
    normalization = ImageNormalization.parse("imagenet")
    mean, std = (torch.tensor(part).reshape(3, 1, 1) for part in (normalization.mean, normalization.std))
    normalized = {**plain, "image": (plain["image"] - mean) / std}
    expected = Augmentations([ColorJitter()], PLAIN)(plain, (1,))["image"]
    got = Augmentations([ColorJitter()], normalization)(normalized, (1,))["image"]
    torch.testing.assert_close(got * std + mean, expected, atol=1e-5, rtol=0)


class Cropping:
    """Changes a shape, which no augmentation may."""

    def __call__(self, batch: dict[str, Any], draw: Draw) -> dict[str, Any]:
        return {**batch, "image": batch["image"][..., 1:]}


def test_what_is_wrong_is_refused() -> None:
    with pytest.raises(ContractError, match="augmentation Cropping: expected a batch of the shapes it was given"):
        Augmentations([Cropping()], PLAIN)(batch(), (0,))
    with pytest.raises(ContractError, match=r"expected a method __call__\(batch, draw\), got none"):
        Augmentations([3], PLAIN)  # type: ignore[list-item]
    features = {"image": torch.zeros(2, 512), "state": torch.zeros(2, 3)}
    with pytest.raises(
        ContractError, match="augmentation Cutout: expected images, got features of a frozen image encoder"
    ):
        Augmentations([Cutout()], PLAIN)(features, (0,))
    with pytest.raises(ContractError, match="augmentation StateNoise: expected a state, got none"):
        Augmentations([StateNoise()], PLAIN)({"image": torch.zeros(1, 1, 3, 4, 4)}, (0,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomShift(0), "RandomShift.pixels: expected at least 1, got 0."),
        (lambda: RandomCrop(1.2), "RandomCrop.scale: expected 0 < low ≤ high ≤ 1, got 1.2."),
        (lambda: ColorJitter(hue=0.7), "ColorJitter.hue: expected low ≤ high within 0 … 0.5, got 0.7."),
        (lambda: Cutout((0.4, 0.2)), "Cutout.size: expected low ≤ high within 0 … 1, got (0.4, 0.2)."),
        (lambda: StateNoise(-1.0), "StateNoise.std: expected a number ≥ 0, got -1.0."),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()
