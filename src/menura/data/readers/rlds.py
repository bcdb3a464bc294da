"""RLDS datasets as tensorflow-datasets writes them (Open X-Embodiment, DROID, BridgeData), read without TensorFlow.

A dataset is a version directory with `features.json`, `dataset_info.json` and TFRecord shards; a record is an episode,
`steps` and `episode_metadata` (https://github.com/google-research/rlds).

**The last step.** In RLDS the action of a step is the one taken on its observation, and that of the step with `is_last`
is invalid: the environment was not asked for it. Recorders that follow this leave zeros or NaN there; the datasets of
Open X-Embodiment mostly hold a real action. `last_step="auto"` tells them apart by the data: a last step is left out
where `is_last` is set and its action is all zeros or not finite, which never loses anything an imitator could learn
from. `"keep"` keeps every step as it is, `"drop"` leaves the last one of every episode out. A lone step is always kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode, Float32, Frames
from menura.data.frames import ImageFrames
from menura.data.pictures import decode_picture
from menura.data.readers.base import Reader
from menura.data.readers.common import chosen_episodes, given_rate
from menura.data.readers.keys import Keys
from menura.data.readers.open_x import known_fps
from menura.data.readers.rlds_keys import METADATA, STEPS, control_of, select, vector_feature
from menura.data.readers.tf_example import Feature, read_example
from menura.data.readers.tfds_features import FEATURES, Leaf, read_features
from menura.data.readers.tfds_shards import INFO, Shards, version_directory
from menura.errors import DataError
from menura.features import CameraFeature, Features

LastStep = Literal["auto", "keep", "drop"]
_LAST_STEPS = ("auto", "keep", "drop")
_LARGEST_FACT = 64  # numbers; what is larger is no fact on an episode

Example = Mapping[str, Feature]


class RldsReader(Reader):
    """An RLDS dataset in the files of tensorflow-datasets.

    Args:
        path: the version directory, or its parent where it is the only one.
        keys: what is read, each whole (`steps/observation/state`) or short (`state`, `action/world_vector`). When not
            said: the state is `observation/state` (or `proprio`, or the only vector), the action `action`, cameras are
            all RGB pictures of the observation, the task the first instruction that is not empty.
        episodes: which ones, in this order, counted over the shards in theirs; all when not given.
        name: what to call it; the dataset's own name when not given.
        split: one of those in `dataset_info.json`.
        fps: steps per second; known for the datasets of Open X-Embodiment, required for others.
        last_step: what becomes of the last step of an episode, see above.
        verify: whether the checksum of a record is checked before it is first read; lengths are always checked.

    Raises:
        DataError: absent or damaged files, keys that are not there or not certain, an unknown rate.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        keys: Keys | Mapping[str, Any] | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
        split: str = "train",
        fps: float | None = None,
        last_step: LastStep = "auto",
        verify: bool = True,
    ) -> None:
        self.root = version_directory(Path(path).expanduser().resolve())
        if last_step not in _LAST_STEPS:
            raise DataError(f"{self.root}: last_step: expected one of {list(_LAST_STEPS)}, got {last_step!r}.")
        self._leaves = read_features(self.root)
        self._shards = Shards(self.root, split)
        self.name = name or self._shards.dataset
        self._selection = select(self._leaves, Keys.of(keys), self.root)
        self._split, self._last_step, self._verify = split, last_step, verify
        self._fps = self._rate(fps)
        self._selected = self._select_episodes(episodes)
        self._lengths: NDArray[np.int64] | None = None
        self.features = self._features()

    def __len__(self) -> int:
        return len(self._selected)

    def lengths(self) -> NDArray[np.int64]:
        """(E,) steps of each episode. Of each record only the action and `is_last` are looked at; kept once counted."""
        if self._lengths is None:
            records = [int(record) for record in self._selected]
            lengths = [self._count(self._example(record, verify=False))[1] for record in records]
            self._lengths = np.array(lengths, np.int64)
        return self._lengths

    def episode(self, index: int) -> Episode:
        """Episode `index`; its pictures are decoded when asked for."""
        record = self._record(index)
        example = self._example(record, self._verify)
        total, length = self._count(example)
        facts = self._facts(example)
        return Episode(
            state=self._table(example, self._selection.state, total)[:length],
            action=self._table(example, self._selection.action, total)[:length],
            images=self._cameras(record, length),
            task=self._task(example),
            fps=self._fps,
            success=facts.get("success"),
            extra=facts["extra"],
        )

    def images(self, index: int) -> Mapping[str, Frames]:
        record = self._record(index)
        return self._cameras(record, self._count(self._example(record, verify=False))[1])

    def tasks(self) -> list[str]:
        return [self._task(self._example(int(record), verify=False)) for record in self._selected]

    def metadata(self, index: int) -> dict[str, Any]:
        """`success` where the dataset says it, and as `extra` what else it says of the episode."""
        return self._facts(self._example(self._record(index), verify=False))

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        selection = self._selection
        read = [selection.state, selection.action, selection.cameras.values(), selection.tasks]
        chosen = [[leaf.key for leaf in leaves] for leaves in read]
        options = [self._split, self._last_step, self._fps, list(selection.cameras), chosen, self._selected.tolist()]
        digest.update(json.dumps(options).encode())
        for name in (FEATURES, INFO):
            digest.update((self.root / name).read_bytes())
        for path in self._shards.files:
            if path.exists():
                stat = path.stat()
                digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    # What is in the dataset

    def _rate(self, given: float | None) -> float:
        fps = known_fps(self._shards.dataset) if given is None else given
        if fps is None:
            raise DataError(
                f"{self.root}: fps: expected steps per second, got none: RLDS does not keep them and "
                f"{self._shards.dataset!r} is not known. Say it: args: {{fps: …}}."
            )
        return given_rate(self.root, fps)

    def _select_episodes(self, given: Sequence[int] | None) -> NDArray[np.int64]:
        if len(self._shards) == 0:
            raise DataError(f"{self.root}: split {self._split!r}: expected episodes, got none. Choose another split.")
        selected = chosen_episodes(self.root, given, len(self._shards))
        missing = self._shards.missing(selected)
        if missing:
            raise DataError(
                f"{missing[0]}: expected all {len(self._shards.files)} shards, got {len(missing)} that are not there. "
                f"Fetch them, or choose episodes of the others."
            )
        return selected

    def _features(self) -> Features:
        state, action, dataset = self._selection.state, self._selection.action, self._shards.dataset
        space, kind = control_of(action, dataset)
        return Features(
            state=vector_feature(state, "state", dataset) if state else None,
            action=vector_feature(action, "action", dataset),
            cameras={camera: self._camera(leaf) for camera, leaf in self._selection.cameras.items()},
            fps=self._fps,
            language=bool(self._selection.tasks),
            control_space=space,
            control_type=kind,
        )

    def _camera(self, leaf: Leaf) -> CameraFeature:
        """Of the declared size; where none is, of that of the first picture."""
        height, width = leaf.shape[:2]
        if height is None or width is None:
            record = int(self._selected[0])
            first = self._pictures(leaf, record)[0]
            height, width = decode_picture(first, f"{self._shards.where(record)}: {leaf.key}").shape[:2]
        return CameraFeature(height, width)

    # One episode

    def _record(self, index: int) -> int:
        self.require_episode(index)
        return int(self._selected[index])

    def _example(self, record: int, verify: bool) -> Example:
        data = self._shards.record(record)
        if verify:
            self._shards.verify(record)
        return read_example(data, self._shards.where(record))

    def _count(self, example: Example) -> tuple[int, int]:
        """Steps of an episode, and how many of them are used."""
        action = self._selection.action[0]
        total = action.count(example)
        if total == 0:
            what = example[action.stored_key].what
            raise DataError(f"{what}: expected at least one step, got none. Leave this episode out.")
        dropped = self._last_step == "drop" or (self._last_step == "auto" and self._ends_in_placeholder(example, total))
        return total, total - 1 if dropped and total > 1 else total

    def _ends_in_placeholder(self, example: Example, total: int) -> bool:
        is_last = self._leaves.get(f"{STEPS}is_last")
        if is_last is None or not np.any(is_last.elements(example)[-1:]):
            return False
        action = self._table(example, self._selection.action, total)[-1]
        return not np.isfinite(action).all() or not action.any()

    def _table(self, example: Example, leaves: tuple[Leaf, ...], total: int) -> Float32:
        """(T, D) the numbers of these leaves, joined."""
        parts = [np.zeros((total, 0), np.float32)]
        for leaf in leaves:
            values = np.asarray(leaf.elements(example))
            self._expect(len(values), total, leaf, example)
            parts.append(values.reshape(total, -1).astype(np.float32, copy=False))
        return np.concatenate(parts, axis=1)

    def _expect(self, got: int, total: int, leaf: Leaf, example: Example) -> None:
        if got != total:
            action = self._selection.action[0].key
            raise DataError(
                f"{example[leaf.stored_key].what}: expected {total} steps as {action!r} has, got {got}. "
                f"Fetch the dataset again."
            )

    def _cameras(self, record: int, length: int) -> dict[str, Frames]:
        where = self._shards.where(record)
        frames: dict[str, Frames] = {}
        for camera, leaf in self._selection.cameras.items():
            size = self.features.cameras[camera]
            load = partial(self._pictures, leaf, record)
            frames[camera] = ImageFrames(load, length, size.height, size.width, f"{where}: camera {camera!r}")
        return frames

    def _pictures(self, leaf: Leaf, record: int) -> Sequence[bytes]:
        """The encoded pictures of an episode."""
        example = self._example(record, self._verify)
        pictures = [bytes(picture) for picture in leaf.elements(example)]
        self._expect(len(pictures), self._count(example)[0], leaf, example)
        return pictures

    def _task(self, example: Example) -> str:
        """The first instruction that is not empty, as the first step has it."""
        return next(filter(None, (self._text(example, leaf) for leaf in self._selection.tasks)), "")

    def _text(self, example: Example, leaf: Leaf) -> str:
        values = leaf.elements(example)
        first = bytes(values[0]) if len(values) else b""
        try:
            return first.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{example[leaf.key].what}: expected UTF-8, got {first[:40]!r}.") from error

    def _facts(self, example: Example) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for leaf in self._leaves.values():
            if not leaf.key.startswith(METADATA) or leaf.sequences or leaf.key not in example:
                continue
            if leaf.kind == "text":
                facts[leaf.key.removeprefix(METADATA)] = self._text(example, leaf)
            elif leaf.kind == "tensor" and leaf.size is not None and leaf.size <= _LARGEST_FACT:
                facts[leaf.key.removeprefix(METADATA)] = np.asarray(leaf.elements(example))[0].tolist()
        success = facts.pop("success", None) if isinstance(facts.get("success"), bool) else None
        return {"extra": facts} if success is None else {"success": success, "extra": facts}
