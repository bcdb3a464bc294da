"""Other names for dimensions and cameras, other words for tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.data.wrappers.base import Wrapper
from menura.errors import DataError, did_you_mean
from menura.features import VectorFeature


class Rename(Wrapper):
    """Dimensions of the state and the action, and cameras, under other names. The numbers stay as they are.

    Args:
        reader: what is wrapped.
        state, action: name of a dimension -> its new name.
        cameras: name of a camera -> its new name.
        tasks: an instruction -> its new words, "" -> those of episodes without one; others stay as they are.

    Raises:
        DataError: there is no such name, or two would be the same.
    """

    def __init__(
        self,
        reader: Reader,
        state: Mapping[str, str] | None = None,
        action: Mapping[str, str] | None = None,
        cameras: Mapping[str, str] | None = None,
        tasks: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reader)
        features = reader.features
        self._tasks = dict(tasks or {})
        self._cameras = _mapping("cameras", list(features.cameras), cameras)
        self.features = replace(
            features,
            state=None if features.state is None else _renamed("state", features.state, state),
            action=_renamed("action", features.action, action),
            cameras={self._cameras[name]: camera for name, camera in features.cameras.items()},
            language=features.language or "" in self._tasks,
        )
        if features.state is None and state:
            raise DataError(f"Rename.state: expected nothing, {reader.name!r} has no state, got {dict(state)}.")

    def tasks(self) -> list[str]:
        return [self._tasks.get(task, task) for task in self.reader.tasks()]

    def episode(self, index: int) -> Episode:
        episode = self.reader.episode(index)
        images = {self._cameras.get(name, name): frames for name, frames in episode.images.items()}
        return replace(episode, images=images, task=self._tasks.get(episode.task, episode.task))


def _renamed(what: str, feature: VectorFeature, given: Mapping[str, str] | None) -> VectorFeature:
    new = _mapping(what, feature.names, given)
    return replace(
        feature,
        names=tuple(new[name] for name in feature.names),
        object_names=tuple(new[name] for name in feature.object_names),
        rotations=tuple(
            replace(rotation, names=tuple(new[name] for name in rotation.names)) for rotation in feature.rotations
        ),
        grippers={new[name]: values for name, values in feature.grippers.items()},
    )


def _mapping(what: str, names: Sequence[str], given: Mapping[str, str] | None) -> dict[str, str]:
    """Every name -> what it is called now."""
    given = given or {}
    for name in given:
        if name not in names:
            near = did_you_mean(name, names) or "."
            raise DataError(f"Rename.{what}: expected names of {list(names)}, got {name!r}{near}")
    new = [given.get(name, name) for name in names]
    twice = next((name for name in new if new.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"Rename.{what}: expected different names, got {twice!r} twice. Rename the other one too.")
    return dict(zip(names, new, strict=True))
