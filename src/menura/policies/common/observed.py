"""What a policy was given: states and features of cameras at every observation, what a row lacks being read as 0.

Shapes: B batch, O observation steps, K cameras, H W image, D state, F features of one camera.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def state_steps(state: Tensor | None, mask: Tensor | None, width: int, policy: str) -> Tensor:
    """The states (B, O, D) of `state` (B, [O,] D), 0 where `mask` (B, D) says that a row has no such dimension.

    Raises:
        ValueError: in the name of `policy`, there is no state.
    """
    if state is None:
        raise ValueError(f"{policy}: expected a state of width {width}, got none.")
    steps = state.reshape(len(state), -1, width)
    return steps if mask is None else steps * mask[:, None]


def given_images(image: Tensor | None, cameras: Sequence[str] | None, policy: str) -> Tensor:
    """`image` (B, [O,] K, 3, H, W).

    Raises:
        ValueError: in the name of `policy`, there is none.
    """
    if image is None:
        raise ValueError(f"{policy}: expected images of {cameras}, got none.")
    return image


def camera_steps(features: Tensor, mask: Tensor | None, rows: int, cameras: int) -> Tensor:
    """Features (B·O·K, F) as (B, O, K, F), 0 where `mask` (B, K) says that a row has no such camera."""
    steps = features.reshape(rows, -1, cameras, features.shape[-1])
    return steps if mask is None else steps * mask[:, None, :, None]
