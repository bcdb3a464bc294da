"""Images made square with their aspect kept."""

from __future__ import annotations

import pytest
import torch

from menura.policies.common.image_padding import BLACK, fit


@pytest.mark.parametrize("centred", [True, False])
def test_an_image_of_that_size_stays_as_it_is(centred):
    image = torch.rand(2, 3, 8, 8)
    assert fit(image, 8, centred=centred) is image


@pytest.mark.parametrize(("centred", "rows"), [(True, slice(2, 6)), (False, slice(4, 8))])
def test_a_wide_image_is_black_above_and_below(centred, rows):
    padded = fit(torch.full((1, 3, 8, 16), 0.5), 8, centred=centred)
    expected = torch.full((1, 3, 8, 8), BLACK)
    expected[:, :, rows] = 0.5
    torch.testing.assert_close(padded, expected)


@pytest.mark.parametrize(("centred", "columns"), [(True, slice(1, 6)), (False, slice(3, 8))])
def test_a_high_image_is_black_left_and_right(centred, columns):
    """Of an odd rest, the larger half is on the right."""
    padded = fit(torch.full((1, 3, 16, 10), 0.5), 8, centred=centred)
    expected = torch.full((1, 3, 8, 8), BLACK)
    expected[:, :, :, columns] = 0.5
    torch.testing.assert_close(padded, expected)


def test_small_images_grow():
    assert fit(torch.rand(1, 3, 3, 4), 8, centred=True).shape == (1, 3, 8, 8)
