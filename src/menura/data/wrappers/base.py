"""Wrappers: readers that hand another reader's episodes on, changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.data.readers.user import UserReader, source_of
from menura.features import Features


class Wrapper(Reader):
    """The base of a wrapper: everything is as of the reader within. Override what changes.

    A wrapper that changes what the numbers mean sets `features`; one that changes how many frames an episode has
    overrides `lengths`; one that changes which episodes there are overrides `__len__` and `metadata` as well. The
    arguments it was made with, and its source file, are part of the fingerprint by themselves.

    Args:
        reader: what is wrapped.

    Attributes:
        reader: the same.
    """

    _arguments: tuple[Any, ...]

    def __new__(cls, *places: Any, **args: Any) -> Wrapper:
        made = super().__new__(cls)
        made._arguments = (places[1:], {key: value for key, value in args.items() if key != "reader"})
        return made

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.name = reader.name
        self.features = reader.features

    def __len__(self) -> int:
        return len(self.reader)

    def episode(self, index: int) -> Episode:
        return self.reader.episode(index)

    def lengths(self) -> NDArray[np.int64]:
        return self.reader.lengths()

    def shards(self) -> NDArray[np.int64]:
        return self.reader.shards()

    def fingerprint(self) -> str:
        return _digest(self.reader, type(self), self._arguments)

    def metadata(self, index: int) -> dict[str, Any]:
        return self.reader.metadata(index)


class WrapperReader(UserReader):
    """Makes a `Reader` of a wrapper without that base: any object with `__len__` and `episode(i)` over another reader.

    What it lacks is found out: names, units and the like stay those of the reader within where the widths (and the
    cameras' sizes) do, lengths come from reading every episode once, the fingerprint from that of the reader within,
    the class's source file and the arguments.

    Args:
        wrapper: the object.
        inner: what it was made with.
        args: what else it was made with.

    Raises:
        ContractError: a method is missing, or returned something else than it should.
    """

    def __init__(self, wrapper: Any, inner: Reader, args: Mapping[str, Any]) -> None:
        own_name = getattr(wrapper, "name", None)
        super().__init__(wrapper, name=own_name if isinstance(own_name, str) else inner.name, args=args)
        self._inner = inner
        if not isinstance(getattr(wrapper, "features", None), Features):
            self.features = _kept(inner.features, self.features)

    def fingerprint(self) -> str:
        own = getattr(self._dataset, "fingerprint", None)
        return super().fingerprint() if callable(own) else _digest(self._inner, type(self._dataset), self._args)


def wrap(reader: Reader, wrapper: type, args: Mapping[str, Any]) -> Reader:
    """`reader` seen through a wrapper of that class."""
    made = wrapper(reader, **args)
    return made if isinstance(made, Wrapper) else WrapperReader(made, reader, args)


def _digest(inner: Reader, wrapper: type, arguments: Any) -> str:
    digest = hashlib.sha256(inner.fingerprint().encode())
    digest.update(source_of(wrapper))
    digest.update(wrapper.__qualname__.encode())
    digest.update(json.dumps(arguments, sort_keys=True, default=_plain).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """All numbers of an array, whose `repr` leaves out the middle."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else repr(value)


def _kept(inner: Features, found: Features) -> Features:
    """`found`, read off the first episode, with what the reader within says of parts that have the same shape."""
    state = inner.state if inner.state_dim == found.state_dim else found.state
    action = inner.action if inner.action_dim == found.action_dim else found.action
    cameras = {
        name: same
        if (same := inner.cameras.get(name)) and (same.height, same.width) == (camera.height, camera.width)
        else camera
        for name, camera in found.cameras.items()
    }
    return replace(inner, state=state, action=action, cameras=cameras, fps=found.fps, language=found.language)
