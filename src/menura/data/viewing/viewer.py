"""What the page asks of a dataset: JSON-able answers and blocks of bytes. Torch-free.

Nothing is read before it is asked for: opening a page costs the lengths of the episodes, not their content.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from menura.data.readers.base import Reader
from menura.data.viewing.episodes import Episodes
from menura.data.viewing.examination import Examination
from menura.data.viewing.strips import STRIP, Strips
from menura.errors import ConfigError, DataError


class Augmented(Protocol):
    """Shows what a task's augmentations make of a frame (`menura.training.augmented.AugmentedFrames`)."""

    def show(self, episode: int, frame: int, seeds: Sequence[int]) -> dict[str, Any]:
        """JSON-able; `page/augmentation.js` draws it."""
        ...


class Viewer:
    """A dataset to be looked at.

    Args:
        open: opens it; called once now, and again for what runs in the background.
        augmented: of a task, to be shown beside the data; None for none.
        cache_dir: where the check's report is kept; as `check_dataset`.
    """

    def __init__(
        self, open: Callable[[], Reader], *, augmented: Augmented | None = None, cache_dir: str | None = None
    ) -> None:
        self.reader = open()
        self._lengths = self.reader.lengths()
        self._episodes = Episodes(self.reader)
        self._strips = Strips(self._episodes)
        self._augmented = augmented
        self.examination = Examination(open, cache_dir)

    def dataset(self) -> dict[str, Any]:
        """What the dataset is, and how long its episodes are."""
        return {
            "name": self.reader.name,
            "features": self.reader.features.to_dict(),
            "lengths": self._lengths.tolist(),
            "strip": STRIP,
            "augmented": self._augmented is not None,
        }

    def episodes(self) -> dict[str, Any]:
        """The task of each episode, as a number in `tasks`, and whether it was solved: true, false or null."""
        with self._episodes.lock:
            texts = self.reader.tasks()
            solved = [self.reader.metadata(index).get("success") for index in range(len(self.reader))]
        tasks = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        return {"tasks": list(tasks), "task": [tasks[text] for text in texts], "success": solved}

    def episode(self, index: int) -> dict[str, Any]:
        """What is known of an episode."""
        episode = self._episodes[self._known(index)]
        with self._episodes.lock:
            noted = dict(self.reader.metadata(index))
        extra = {**noted, **noted.pop("extra", {}), **episode.extra}
        return {
            "episode": index,
            "length": len(episode),
            "task": episode.task,
            "success": episode.success,
            "seed": episode.seed,
            "extra": _sayable({key: value for key, value in extra.items() if key not in ("success", "seed", "extra")}),
        }

    def table(self, index: int) -> bytes:
        """(T, D + A) float32, little-endian, row by row: state and action side by side."""
        episode, features = self._episodes[self._known(index)], self.reader.features
        widths, expected = (episode.state.shape[1], episode.action.shape[1]), (features.state_dim, features.action_dim)
        if widths != expected:
            raise DataError(
                f"Episode {index}: expected {expected} numbers in state and action as the dataset says, got {widths}."
            )
        return np.hstack([episode.state, episode.action]).astype("<f4").tobytes()

    def strip(self, index: int, number: int) -> bytes:
        """Frames of all cameras, as `menura.data.viewing.strips` lays them out."""
        last = (int(self._lengths[self._known(index)]) - 1) // STRIP
        return self._strips.strip(index, _within("number", number, last))

    def augmented(self, index: int, frame: int, first_seed: int, seeds: int) -> dict[str, Any]:
        """What the task's augmentations make of a frame, with each of so many seeds."""
        if self._augmented is None:
            raise ConfigError("augmented: expected a task, got none. Start with --augment TASK.")
        _within("frame", frame, int(self._lengths[self._known(index)]) - 1)
        _within("seeds", seeds, 64)
        return self._augmented.show(index, frame, range(first_seed, first_seed + seeds))

    def close(self) -> None:
        """End what runs in the background."""
        self.examination.end()

    def _known(self, index: int) -> int:
        return _within("episode", index, len(self.reader) - 1)


def _within(what: str, value: int, last: int) -> int:
    if not 0 <= value <= last:
        raise ConfigError(f"{what}: expected a number in 0 … {last}, got {value}.")
    return value


def _sayable(value: Any) -> Any:
    """Without the numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): _sayable(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sayable(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
