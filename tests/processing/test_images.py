"""The one resize, and the normalization of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from menura.errors import FeatureMismatch
from menura.processing.images import NAMED, ImageNormalization, resize_images, to_channels_first


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("mode", ["stretch", "pad"])
def test_a_row_does_not_depend_on_its_batch(mode: str) -> None:
    images = noise(5, 48, 64, 3)
    whole = resize_images(images, (21, 33), mode)
    for index in range(5):
        assert np.array_equal(resize_images(images[index], (21, 33), mode), whole[index])
    assert np.array_equal(resize_images(images[None, :, ::1], (21, 33), mode)[0], whole)


def test_shrinking_averages() -> None:
    """Antialiased: a fine checkerboard becomes grey, not black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    small = resize_images(np.repeat(board[..., None], 3, -1).astype(np.uint8), (8, 8))
    assert np.abs(small.astype(int) - 127).max() <= 12


def test_a_constant_image_stays_constant() -> None:
    for size in ((7, 9), (100, 50)):
        assert (resize_images(np.full((30, 40, 3), 77, np.uint8), size) == 77).all()


def test_pad_keeps_the_aspect_between_black_borders() -> None:
    padded = resize_images(np.full((2, 20, 40, 3), 200, np.uint8), (32, 32), "pad")
    assert padded.shape == (2, 32, 32, 3)
    assert (padded[:, 8:24] == 200).all()
    assert (padded[:, :8] == 0).all()
    assert (padded[:, 24:] == 0).all()


def test_the_size_it_has_is_no_work() -> None:
    images = noise(2, 8, 8, 3)
    assert resize_images(images, (8, 8)) is images


def test_views_and_read_only_arrays_give_the_same() -> None:
    images = noise(3, 40, 60, 3)
    frozen = images.copy()
    frozen.flags.writeable = False
    assert np.array_equal(resize_images(frozen, (10, 10)), resize_images(images, (10, 10)))
    assert np.array_equal(resize_images(images[:, ::2], (10, 10)), resize_images(images[:, ::2].copy(), (10, 10)))
    assert resize_images(images[:0], (10, 10)).shape == (0, 10, 10, 3)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["stretch", "pad"]),
)
def test_any_size_becomes_any_size(before: tuple[int, int], after: tuple[int, int], mode: str) -> None:
    assert resize_images(noise(2, *before, 3), after, mode).shape == (2, *after, 3)


@pytest.mark.parametrize(
    ("images", "size", "mode", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), (2, 2), "stretch", "expected uint8 images"),
        (np.zeros((3, 4, 4), np.uint8), (2, 2), "stretch", "colours last"),
        (np.zeros((4, 4, 3), np.uint8), (2, 0), "stretch", "> 0, got"),
        (np.zeros((4, 4, 3), np.uint8), (2, 2), "strech", "did you mean stretch"),
    ],
)
def test_what_is_no_image_is_refused(images: np.ndarray, size: tuple[int, int], mode: str, message: str) -> None:
    with pytest.raises(FeatureMismatch, match=message):
        resize_images(images, size, mode)


@pytest.mark.parametrize(
    ("value", "mean", "std"),
    [
        (None, (0, 0, 0), (1, 1, 1)),
        ("zero_one", (0, 0, 0), (1, 1, 1)),
        ("minus_one_one", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}, (0.1, 0.2, 0.3), (1, 2, 3)),
        ([[0.1, 0.2, 0.3], [1, 2, 3]], (0.1, 0.2, 0.3), (1, 2, 3)),
    ],
)
def test_pixels_are_normalized_as_the_config_says(value: object, mean: tuple, std: tuple) -> None:
    images = noise(2, 4, 5, 6, 3)
    got = to_channels_first(torch.from_numpy(images), ImageNormalization.parse(value).table())
    expected = (images / 255 - np.array(mean)) / np.array(std)
    assert got.shape == (2, 4, 3, 5, 6)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), np.moveaxis(expected, -1, -3), rtol=1e-5, atol=1e-6)


def test_pixels_are_not_copied_into_another_order() -> None:
    flat = to_channels_first(torch.from_numpy(noise(2, 4, 4, 3)), NAMED["zero_one"].table())
    assert flat.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("imagnet", "did you mean imagenet"),
        ([[0, 0, 0]], "three numbers each"),
        ({"mean": [0, 0, 0]}, "three numbers each"),
        ([[0, 0, 0], [1, 1, 0]], "std > 0"),
        ([[0, 0, float("nan")], [1, 1, 1]], "finite"),
    ],
)
def test_wrong_normalizations_are_refused(value: object, message: str) -> None:
    with pytest.raises(FeatureMismatch, match=message):
        ImageNormalization.parse(value)
