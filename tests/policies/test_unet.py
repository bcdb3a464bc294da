"""The 1-D U-Net and its convolutions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from menura.policies.common.convolutions import ShortConv1d, ShortConvTranspose1d
from menura.policies.common.unet import ConditionalUNet


def same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    theirs.load_state_dict(ours.state_dict())


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 17),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    bias=st.booleans(),
)
def test_a_short_convolution_is_the_same_convolution(batch, steps, kernel, stride, bias):
    settings_of_both = {"kernel_size": kernel, "stride": stride, "padding": kernel // 2, "bias": bias}
    ours, theirs = ShortConv1d(6, 4, **settings_of_both), nn.Conv1d(6, 4, **settings_of_both)
    same_weights(ours, theirs)
    x = torch.randn(batch, 6, steps, requires_grad=True)
    y = torch.randn_like(x, requires_grad=False).copy_(x.detach()).requires_grad_()
    torch.testing.assert_close(ours(x), theirs(y))
    ours(x).square().sum().backward()
    theirs(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), steps=st.integers(1, 9), bias=st.booleans())
def test_a_short_transposed_convolution_is_the_same(batch, steps, bias):
    settings_of_both = {"kernel_size": 4, "stride": 2, "padding": 1, "bias": bias}
    ours, theirs = ShortConvTranspose1d(6, 4, **settings_of_both), nn.ConvTranspose1d(6, 4, **settings_of_both)
    same_weights(ours, theirs)
    x = torch.randn(batch, 6, steps)
    torch.testing.assert_close(ours(x), theirs(x))


def test_changed_weights_count_at_once():
    convolution = ShortConv1d(4, 4, 3, padding=1)
    x = torch.randn(1, 4, 8)
    before = convolution(x)
    with torch.no_grad():
        convolution.weight.mul_(2)
        convolution.bias.mul_(2)
    torch.testing.assert_close(convolution(x), 2 * before)


@pytest.mark.parametrize("length", [1, 3, 5, 16])
@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 24)])
def test_a_chunk_of_any_length(length, widths):
    unet = ConditionalUNet(3, 5, widths=widths, kernel_size=3, time_dim=8)
    condition = torch.randn(2, 5)
    out = unet(torch.randn(2, length, 3), torch.tensor([4, 7]), unet.modulation(condition))
    assert out.shape == (2, length, 3)


def test_the_modulations_are_one_linear_layer_over_time_and_condition():
    unet = ConditionalUNet(3, 5, widths=(8,), time_dim=8)
    joined = nn.Linear(13, sum(unet.film_widths))
    with torch.no_grad():
        joined.weight.copy_(torch.cat((unet.film.time.weight, unet.film.condition.weight), dim=1))
        joined.bias.copy_(unet.film.condition.bias)
    time, condition = torch.randn(2, 8), torch.randn(2, 5)
    parts = unet.film.time(time) + unet.film.condition(condition)
    torch.testing.assert_close(parts, joined(torch.cat((time, condition), dim=1)))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="widths to be multiples of 8"):
        ConditionalUNet(3, 5, widths=(12,))
    with pytest.raises(ValueError, match="kernel_size to be odd"):
        ConditionalUNet(3, 5, widths=(8,), kernel_size=4)
