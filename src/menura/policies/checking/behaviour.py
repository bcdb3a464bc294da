"""Watching a policy learn, save, load and act on synthetic samples: one function a check, each says what it saw."""

from __future__ import annotations

import copy
import inspect
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from menura.errors import ContractError
from menura.features import Features
from menura.policies.checking.failures import naming_layers
from menura.policies.checking.samples import make_batch
from menura.policies.contract import Contract, Needs, check_finite, completed, loss_and_logs, observation
from menura.policies.quiet import no_progress_bars

STEPS = 10
LEARNING_RATE = 3e-4
#: Answers to equal questions in batches of equal size may differ by this much, relative to their size: the order of
#: floating-point sums is not promised.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Trial:
    """A policy under check, and the samples it is checked with."""

    policy: PreTrainedModel
    features: Features
    encoder_dim: int | None
    batch: dict[str, Any]
    batch_size: int

    @classmethod
    def of(
        cls,
        policy_class: type[PreTrainedModel],
        config: PretrainedConfig,
        features: Features,
        encoder_dim: int | None,
        batch_size: int = 4,
    ) -> Trial:
        with seeded(0):
            policy = completed(policy_class)(copy.deepcopy(config))
        return cls(policy, features, encoder_dim, make_batch(config, features, encoder_dim, batch_size), batch_size)

    @property
    def policy_class(self) -> type[PreTrainedModel]:
        return type(self.policy)

    @property
    def name(self) -> str:
        return type(self.policy).__name__

    @property
    def config(self) -> PretrainedConfig:
        return self.policy.config

    @property
    def contract(self) -> Contract:
        return Contract.of(type(self.policy))

    @property
    def needs(self) -> Needs:
        return Needs.of(self.config)

    def samples(self, seed: int) -> dict[str, Any]:
        return make_batch(self.config, self.features, self.encoder_dim, self.batch_size, seed)

    def loss(self, batch: Mapping[str, Any], seed: int = 1) -> Tensor:
        """The loss of a training step with that randomness; ContractError when it is none, or not finite."""
        self.policy.train()
        with seeded(seed), naming_layers(self.policy):
            output = self.policy(**self.contract.select(batch))
        loss, logs = loss_and_logs(output, self.name)
        check_finite(loss, logs, self.name)
        return loss

    def act(self, batch: Mapping[str, Any], seed: int = 1) -> Any:
        """What `select_action` answers with that randomness."""
        self.policy.eval()
        extra: dict[str, Any] = {}
        select_action: Any = self.policy.select_action
        if "generator" in inspect.signature(select_action).parameters:
            rows = range(self.batch_size)
            extra["generator"] = [torch.Generator().manual_seed(seed * self.batch_size + row) for row in rows]
        with seeded(seed), naming_layers(self.policy), torch.no_grad():
            return select_action(observation(batch), **extra)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Randomness that starts from a seed inside and goes on undisturbed after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def training_step(trial: Trial) -> str:
    """`forward` returns a finite scalar loss that can be differentiated, of predictions in the actions' shape."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = trial.loss(trial.batch)
    mismatch = next((str(w.message) for w in caught if "target size" in str(w.message)), None)
    if mismatch is not None:
        shape = tuple(trial.batch["actions"].shape)
        raise ContractError(
            f"{trial.name}.forward in training: expected predictions of the shape of `actions`, {shape}, got: "
            f"{mismatch.partition('.')[0]}. Give the config a `chunk_size` when the policy predicts a chunk (B, T, A); "
            "without one `actions` is (B, A)."
        )
    if not loss.requires_grad:
        raise ContractError(
            f"{trial.name}.forward in training: expected a loss that depends on the weights, got one without a "
            "gradient. Compute it outside torch.no_grad() and without .item() or .detach()."
        )
    return ""


def learning(trial: Trial) -> tuple[list[str], float, float]:
    """(names of parameters that never got a gradient, loss before, loss after) of a few steps on one batch."""
    named = {name: p for name, p in trial.policy.named_parameters() if p.requires_grad}
    without = set(named)
    before = float(trial.loss(trial.batch).detach())
    optimizer = torch.optim.AdamW(named.values(), lr=LEARNING_RATE, weight_decay=0.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        trial.loss(trial.batch).backward()  # type: ignore[no-untyped-call]
        # A layer that starts at zero, as some heads do, hides those before it in the first step only.
        without -= {name for name, p in named.items() if p.grad is not None and p.grad.any()}
        optimizer.step()
    after = float(trial.loss(trial.batch).detach())
    return sorted(without), before, after


def saving_and_loading(trial: Trial) -> str:
    """`from_pretrained` gives back the policy that `save_pretrained` was given."""
    expected = trial.act(trial.batch)
    with tempfile.TemporaryDirectory() as directory, no_progress_bars():
        trial.policy.save_pretrained(directory)
        _same_needs(trial, type(trial.config).from_pretrained(directory))
        again: PreTrainedModel = completed(trial.policy_class).from_pretrained(directory)
    _no_empty_tensors(trial, again)
    got = replace(trial, policy=again).act(trial.batch)
    if not torch.equal(got, expected):
        raise ContractError(
            f"{trial.name}: expected the same actions after saving and loading, got a difference of "
            f"{float((got - expected).abs().max()):.3g}. Keep what forward needs in parameters, persistent buffers or "
            "the config."
        )
    return ""


def _same_needs(trial: Trial, config: PretrainedConfig) -> None:
    needs = Needs.of(config)
    for name, value in vars(trial.needs).items():
        if getattr(needs, name) != value:
            raise ContractError(
                f"{type(config).__name__}: expected {name} = {value} after saving and loading, got "
                f"{getattr(needs, name)}. Assign `self.{name} = {name}` in __init__."
            )


def _no_empty_tensors(trial: Trial, loaded: PreTrainedModel) -> None:
    """transformers makes a model without memory and then fills its parameters and buffers, and nothing else."""
    for path, module in loaded.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_meta:
                place = f"{path}.{name}" if path else name
                raise ContractError(
                    f"{trial.name}: expected every tensor to be there after loading, got {place} without values: it is "
                    f"neither a parameter nor a buffer. Write `self.register_buffer({name!r}, …)` in __init__."
                )


def acting(trial: Trial) -> str:
    """`select_action` answers in the shape the config says, and as `forward` does without actions."""
    rows, width, chunk = trial.batch_size, trial.features.action_dim, trial.needs.chunk_size
    # Steps of the chunk that lie before now are predicted, and not answered.
    steps = None if chunk is None else sum(0 <= offset < chunk for offset in trial.needs.action_offsets or ())
    expected = (rows, width) if steps is None else (rows, steps, width)
    answer = trial.act(trial.batch)
    got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    if got not in (expected, (rows, width)):
        raise ContractError(f"{trial.name}.select_action: expected actions of shape {expected}, got {got}.")
    if not torch.isfinite(answer).all():
        raise ContractError(f"{trial.name}.select_action: expected finite actions, got NaN or infinity.")
    if "actions" in trial.contract.required:
        return ""
    forward = _forward_without_actions(trial)
    if forward is None:
        return "forward has no inference mode: only select_action was looked at"
    if forward.shape != answer.shape:
        raise ContractError(
            f"{trial.name}: expected select_action and forward without actions to agree, got shapes {got} and "
            f"{tuple(forward.shape)}. Call forward in select_action, with the same inputs."
        )
    deterministic = torch.equal(trial.act(trial.batch, seed=1), trial.act(trial.batch, seed=2))
    if deterministic and not torch.allclose(forward, answer, rtol=TOLERANCE, atol=TOLERANCE):
        raise ContractError(
            f"{trial.name}: expected select_action and forward without actions to agree, got a difference of "
            f"{float((forward - answer).abs().max()):.3g}. Call forward in select_action, with the same inputs."
        )
    return ""


def _forward_without_actions(trial: Trial) -> Tensor | None:
    """What `forward` predicts without targets; None when it answers with no tensor of actions."""
    trial.policy.eval()
    with seeded(1), torch.no_grad():
        try:
            output = trial.policy(**trial.contract.select(observation(trial.batch)))
        except (TypeError, AttributeError):
            return None  # such as arithmetic with the absent actions
    if isinstance(output, Mapping):
        output = output.get("actions")
    return output if isinstance(output, Tensor) else None


def rows_apart(trial: Trial) -> str:
    """A row's actions do not change with what the other rows observe."""
    first = trial.act(trial.batch)[0]
    mixed = trial.samples(seed=1)
    for key, value in mixed.items():
        if isinstance(value, Tensor):
            value[0] = trial.batch[key][0]
        else:
            value[:] = [trial.batch[key][0], *reversed(value[1:])]
    difference = float((trial.act(mixed)[0] - first).abs().max())
    if difference > TOLERANCE * max(1.0, float(first.abs().max())):
        raise ContractError(
            f"{trial.name}.select_action: expected each row to depend on its own observation, got a change of "
            f"{difference:.3g} in row 0 when the others changed. Look for an operation over dimension 0, the batch."
        )
    return ""


def padding(trial: Trial) -> str:
    """Actions at padded steps do not change the loss."""
    if trial.needs.chunk_size is None:
        return "no chunk, so nothing is padded"
    if not trial.batch["is_pad"].any():
        return "a chunk of one step is never padded"
    before = float(trial.loss(trial.batch).detach())
    changed = copy.deepcopy(trial.batch)
    changed["actions"][changed["is_pad"]] += 10.0
    after = float(trial.loss(changed).detach())
    if abs(after - before) > TOLERANCE * max(1.0, abs(before)):
        takes = trial.contract.var_keyword or "is_pad" in trial.contract.keys
        mend = "Leave" if takes else "Take `is_pad=None` in forward and leave"
        raise ContractError(
            f"{trial.name}.forward: expected actions past the episode's end (is_pad) not to change the loss, got "
            f"{before:.4g} and then {after:.4g}. {mend} those steps out, for example:\n"
            "    error = (pred_action - actions).abs().mean(-1)  # (B, T)\n"
            "    loss = (error * ~is_pad).sum() / (~is_pad).sum().clamp(min=1)"
        )
    return ""


def batch_kept(trial: Trial) -> str:
    """The batch is the same after a training step and an action."""
    before = copy.deepcopy(trial.batch)
    trial.loss(trial.batch)
    trial.act(trial.batch)
    for key, value in before.items():
        now = trial.batch.get(key)
        same = torch.equal(now, value) if isinstance(value, Tensor) and isinstance(now, Tensor) else now == value
        if not same:
            raise ContractError(
                f"{trial.name}: expected batch[{key!r}] to be left as it was, got it changed in place. Write "
                "`x = x + …` and not `x += …`, and copy before assigning to a part."
            )
    return ""


def repeatable(trial: Trial) -> str:
    """The same seed gives the same loss and the same actions."""
    losses = [float(trial.loss(trial.batch, seed=5).detach()) for _ in range(2)]
    if losses[0] != losses[1]:
        raise ContractError(
            f"{trial.name}.forward: expected the same loss from the same seed, got {losses[0]!r} and {losses[1]!r}. "
            "Draw random numbers with torch, and keep no state between calls."
        )
    if not torch.equal(trial.act(trial.batch, seed=5), trial.act(trial.batch, seed=5)):
        raise ContractError(
            f"{trial.name}.select_action: expected the same actions from the same seed, got others. "
            "Draw random numbers with torch, and keep no state between calls but what reset() clears."
        )
    return ""
