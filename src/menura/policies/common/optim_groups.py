"""Parameter groups for the optimizer, of a policy one part of which learns at a rate of its own."""

from __future__ import annotations

from typing import Any

from torch import nn


def part_at_rate(policy: nn.Module, part: nn.Module | None, rate: float, training_args: Any) -> list[dict[str, Any]]:
    """What learns of `part`, where there is such, at `rate`; the rest at `training_args.learning_rate`."""
    of_part = [] if part is None else [p for p in part.parameters() if p.requires_grad]
    own = {id(parameter) for parameter in of_part}
    rest = [p for p in policy.parameters() if p.requires_grad and id(p) not in own]
    decay = training_args.weight_decay
    groups = [{"params": rest, "lr": training_args.learning_rate, "weight_decay": decay}]
    if of_part:
        groups.append({"params": of_part, "lr": rate, "weight_decay": decay})
    return groups
