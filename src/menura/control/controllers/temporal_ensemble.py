"""What all chunks say of this time, averaged. Torch-free."""

from __future__ import annotations

import numpy as np

from menura.chunks import ActionChunk
from menura.control.controllers.base import Command, Controller
from menura.errors import ContractError
from menura.features import Features
from menura.processing.rotations import average


class TemporalEnsemble(Controller):
    """The mean of all actions meant for now, with weights exp(-coefficient * i), i = 0 the oldest chunk.

    Zhao et al. 2023 (arXiv 2304.13705, algorithm 2; their coefficient is 0.01), by time instead of by step: chunks may
    begin anywhere, be of any length, come late or out of order. Rotations are averaged as rotations. An inference is
    wanted always: the more chunks, the smoother.

    Args:
        coefficient: at least 0; the larger, the more the oldest counts.
    """

    uses_older = True

    def __init__(self, coefficient: float = 0.01) -> None:
        if not coefficient >= 0:
            raise ContractError(f"TemporalEnsemble: expected a coefficient of at least 0, got {coefficient}.")
        self.coefficient = coefficient

    def begin(self, features: Features, control_period_s: float) -> None:
        super().begin(features, control_period_s)
        self._chunks: list[ActionChunk] = []  # the oldest first

    def _take(self, chunk: ActionChunk, now_s: float) -> bool:
        if chunk.end_s <= now_s:
            return False
        self._chunks = sorted([*self._chunks, chunk], key=lambda one: one.number)
        return True

    def command(self, now_s: float) -> Command | None:
        found = [(chunk, index) for chunk in self._chunks if (index := self._index(chunk, now_s)) is not None]
        self._chunks = [chunk for chunk, _ in found]
        if not found:
            return None
        newest = self._command(*found[-1])
        if len(found) == 1:
            return newest
        predictions = np.stack([chunk.actions[index] for chunk, index in found])  # (n, A)
        weights = np.exp(-self.coefficient * np.arange(len(found)))
        action = ((weights @ predictions) / weights.sum()).astype(np.float32)
        for places, representation in zip(self.turns.places, self.turns.representations, strict=True):
            action[places] = average(predictions[:, places], weights, representation)
        return Command(action, newest.meant_s, newest.number, newest.captured_s)

    def next_wanted_s(self, now_s: float) -> float:
        return now_s
