"""Tensors of a foreign checkpoint, taken by name: whatever nobody took is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from menura.errors import CheckpointError, did_you_mean


class Weights:
    """The tensors of a checkpoint; each is taken once, or dropped for a reason that the report names.

    Args:
        tensors: name -> tensor.
        where: the file, for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], where: str) -> None:
        self._left = dict(tensors)
        self.where = where
        self.dropped: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._left

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Those nobody took so far, to look at."""
        return self._left

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, one sentence a reason."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.dropped.items():
            reasons.setdefault(reason, []).append(name)
        return tuple(f"Left out {listed(names)}: {reason}." for reason, names in reasons.items())

    @property
    def left(self) -> tuple[str, ...]:
        """The names nobody took so far, in order."""
        return tuple(self._left)

    def take(self, name: str) -> Tensor:
        """One tensor. CheckpointError, with the nearest name that is there, when it is missing."""
        if name not in self._left:
            raise CheckpointError(
                f"{self.where}: expected the tensor {name!r}, got {len(self._left)} others"
                f"{did_you_mean(name, self._left) or '.'} The file is damaged, or does not belong to its config."
            )
        return self._left.pop(name)

    def take_below(self, prefix: str) -> dict[str, Tensor]:
        """Every tensor whose name starts with `prefix`, by what follows it; none is an error."""
        names = [name for name in self._left if name.startswith(prefix)]
        if not names:
            raise CheckpointError(
                f"{self.where}: expected tensors {prefix}…, got none. The file does not belong to its config."
            )
        return {name.removeprefix(prefix): self._left.pop(name) for name in names}

    def drop(self, prefix: str, reason: str) -> None:
        """Leave out every tensor whose name starts with `prefix`; `reason` is told. There may be none."""
        for name in [name for name in self._left if name.startswith(prefix)]:
            self.dropped[name] = reason
            del self._left[name]


def renamed(tensors: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """The same tensors under other names."""
    return {rename(name): tensor for name, tensor in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`{prefix + name: tensor}`."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def listed(names: Iterable[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
