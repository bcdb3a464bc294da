"""Real-time chunking: a chunk that is sampled such that it agrees with the one under way.

Black, Galliker & Levine 2025 (arXiv 2506.07339), equations 2 to 4: while a chunk is made of noise, the guess of what it
will be is drawn towards the actions that are frozen, and more softly towards those that follow, by the pseudoinverse
guidance of Song et al. 2023 (ΠGDM). Diffusion is guided by the same rule, for it is a flow, too: that of x / (signal +
noise), whose time is signal / (signal + noise) (Gao et al. 2024, "Diffusion meets flow matching: two sides of the same
coin").

Guidance needs the gradient of the network by its sample, also where `no_grad` holds; weights get none.

Shapes: B batch, T chunk, A action; L, W length and width of what is sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: β, the most by which the error is weighed: the paper's, for 5 steps. Of fewer steps it is their number, since an
#: Euler step of length 1 / n goes past its target from there on.
STRENGTH = 5.0


@dataclass(frozen=True)
class Guidance:
    """What a sampled chunk must agree with.

    Attributes:
        target: (B, T, A) float32, normalized.
        weights: (B, T) in [0, 1], how much each action must; or (B, T, A), how much each number.
    """

    target: Tensor
    weights: Tensor

    def placed(self, shape: Sequence[int], first: int = 0, columns: Sequence[int] | None = None) -> Guidance:
        """Of samples (B, L, W) that hold more than a chunk of actions: of the rest nothing is asked.

        Args:
            shape: (L, W).
            first: the step at which the chunk begins.
            columns: where each number of an action stands; the first A, when None.
        """
        length, width = shape
        rows, steps, of_action = self.target.shape
        steps = min(steps, length - first)
        places = torch.arange(of_action) if columns is None else torch.tensor(columns)
        places = places.to(self.target.device)
        weights = self.weights[..., None].expand_as(self.target) if self.weights.ndim == 2 else self.weights
        target, of_target = (
            values.new_zeros(rows, length, width).index_copy(
                2, places, torch.nn.functional.pad(values[:, :steps], (0, 0, first, length - first - steps))
            )
            for values in (self.target, weights)
        )
        return Guidance(target, of_target)


def guided(
    velocity: Callable[[Tensor, Tensor], Tensor],
    guidance: Guidance,
    n_steps: int,
    *,
    start: float = 0.0,
    end: float = 1.0,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The velocity of a flow from `start` (noise) to `end` (data), guided (equation 2).

    Args:
        velocity: (sample (B, L, W), time (B,)) -> (B, L, W).
        guidance: of the whole sample, see `Guidance.placed`.
        n_steps: of the solver.
        start, end: as of the solvers of `flow_matching`.
    """
    guidance, span, most = guidance.placed(guidance.target.shape[1:]), end - start, min(STRENGTH, n_steps)

    def guided_velocity(sample: Tensor, time: Tensor) -> Tensor:
        rest = ((end - time) / span).reshape(-1, *[1] * (sample.ndim - 1))  # 1 - τ

        def both(sample: Tensor) -> tuple[Tensor, Tensor]:
            moved = velocity(sample, time)
            return sample + rest * span * moved, moved  # equation 3

        correction, moved = _correction(both, sample, guidance)
        return moved + _strength(1 - rest, most) * correction / span

    return guided_velocity


def guided_clean(
    predict: Callable[[Tensor], Tensor],
    sample: Tensor,
    guidance: Guidance,
    signal: float,
    noise: float,
    n_steps: int,
    bound: Tensor | float | None = None,
) -> Tensor:
    """What a diffusion's sample is without noise (B, L, W), guided; the noise that is left belongs to it.

    Args:
        predict: (sample (B, L, W)) -> what it is without noise.
        sample: signal · clean + noise · standard normal.
        guidance: of the whole sample, see `Guidance.placed`.
        signal, noise: their shares in the sample.
        n_steps: of the solver.
        bound: the largest absolute value of a clean chunk, to which the guess is clipped; its gradient is not.
    """
    guidance, whole = guidance.placed(guidance.target.shape[1:]), signal + noise

    def both(sample: Tensor) -> tuple[Tensor, Tensor]:
        clean = predict(sample)
        return clean, clean

    correction, clean = _correction(both, sample, guidance, bound)
    correction = whole * correction
    # A guess from predicted noise is divided by the signal, and so is its error: where there is next to none, its
    # gradient says nothing. It counts no more than that of a guess that moves as its sample does.
    error = ((guidance.target - clipped(clean, bound)) * guidance.weights).flatten(1).norm(dim=1)
    length = correction.flatten(1).norm(dim=1).clamp(min=torch.finfo(error.dtype).tiny)
    correction = correction * (error / length).clamp(max=1).reshape(-1, *[1] * (sample.ndim - 1))
    time = signal / whole
    strength = _strength(sample.new_tensor(time), min(STRENGTH, n_steps))
    return clipped(clean + (1 - time) * strength * correction, bound)


def clipped(clean: Tensor, bound: Tensor | float | None) -> Tensor:
    """Within the bound, a number or one a dimension; None: as it is."""
    return clean if bound is None else clean.clamp(-bound, bound)  # type: ignore[arg-type]  # two tensors or two numbers


def _correction(
    both: Callable[[Tensor], tuple[Tensor, Tensor]],
    sample: Tensor,
    guidance: Guidance,
    bound: Tensor | float | None = None,
) -> tuple[Tensor, Tensor]:
    """(Y - Â)ᵀ diag(W) ∂Â/∂A, where `both` answers Â first; and what it answers second."""
    with torch.enable_grad():
        at = sample.detach().requires_grad_()
        clean, answer = both(at)
        error = (guidance.target - clipped(clean.detach(), bound)) * guidance.weights
        (correction,) = torch.autograd.grad(clean, at, error.to(clean.dtype))
    return correction, answer.detach()


def _strength(time: Tensor, most: float) -> Tensor:
    """min(β, (1 - τ) / (τ r²)), where r² = (1 - τ)² / (τ² + (1 - τ)²) (equations 2 and 4)."""
    rest = 1 - time
    return ((time.square() + rest.square()) / (time * rest).clamp(min=0)).clamp(max=most)
