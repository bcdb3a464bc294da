"""`filter:` of a dataset: which of its episodes and frames are used.

Conditions are applied in this order, each to what the one before left: `episodes`, `success`, `first`; then, within the
episodes that are left, `idle` and `frames`. A filter chooses items and changes no data: datasets that differ in their
filter alone share one store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from menura.data.expression import Expression, ExpressionError
from menura.data.motion import Motion
from menura.data.readers.base import Reader
from menura.data.wrappers.select import Select
from menura.errors import ConfigError, DataError, did_you_mean
from menura.features import Features

if TYPE_CHECKING:
    from menura.data.store import Store
    from menura.data.windows import Windows

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Filter:
    """What of a dataset is used; what is not said leaves everything.

    Attributes:
        episodes: numbers of episodes, or an expression over an episode's facts: `index`, `length` (frames), `task`,
            `success`, `seed`, and whatever else the dataset says of its episodes.
        success: only episodes that solved their task.
        first: so many of the episodes that are left.
        idle: leave out the frames before the first and after the last movement, as `menura.data.motion` tells them.
        frames: an expression over an episode's columns, `timestep`, `time` (s), `speed` (the norm of the state's change
            a second, until the next frame), `state.<name>` and `action.<name>`, and over its facts. A window begins
            where it is true; what follows in the chunk stays the true future.
    """

    episodes: tuple[int, ...] | str | None = None
    success: bool = False
    first: int | None = None
    idle: bool = False
    frames: str | None = None

    @classmethod
    def of(cls, given: Filter | Mapping[str, Any] | None) -> Filter:
        """From a YAML's mapping.

        Raises:
            ConfigError: an unknown key, or an expression that cannot be read.
        """
        if given is None or isinstance(given, Filter):
            return given or cls()
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigError(f"filter.{key}: expected one of {known}{did_you_mean(str(key), known) or '.'}")
        values = dict(given)
        for key in ("episodes", "frames"):
            if isinstance(values.get(key), str):
                _parse(key, values[key])
        if isinstance(values.get("episodes"), Sequence) and not isinstance(values["episodes"], str):
            values["episodes"] = tuple(values["episodes"])
        return cls(**values)

    @property
    def identity(self) -> str:
        """A digest of what it says; empty when it leaves everything."""
        if self == Filter():
            return ""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def select_episodes(reader: Reader, filter: Filter) -> Reader:
    """A dataset with those of its episodes that a filter leaves; every episode is opened, no frame decoded.

    Raises:
        ConfigError: the filter has a condition on frames, which only windows can leave out.
        DataError: as of `select`.
    """
    if not filter.identity:
        return reader
    for key, asked in (("idle", filter.idle), ("frames", filter.frames is not None)):
        if asked:
            raise ConfigError(
                f"filter.{key}: expected conditions on episodes, for frames are chosen where windows begin, got {key}. "
                "Train with it, or cut frames off with the wrapper Trim."
            )
    return Select(reader, episodes_left(reader, filter).tolist())


def episodes_left(reader: Reader, filter: Filter) -> Int64:
    """Numbers of the episodes that the conditions on episodes leave; DataError as of `select`."""
    if replace(filter, idle=False, frames=None) == Filter():
        return np.arange(len(reader))
    facts = [_facts_of(reader, index) for index in range(len(reader))]
    left = _Left(reader.name, np.arange(len(reader)), np.asarray(reader.lengths()), facts)
    return _chosen(left, filter).episodes


def require_names(reader: Reader, filter: Filter) -> None:
    """DataError for a name that no episode of a dataset knows. One episode is opened; all, before that is said."""
    for key, text, columns in (
        ("episodes", filter.episodes, []),
        ("frames", filter.frames, _column_names(reader.features)),
    ):
        if not isinstance(text, str):
            continue
        expression = _parse(key, text)
        if set(expression.names) <= {*_fact_names(reader, 1), *columns}:
            continue
        try:
            expression.require([*_fact_names(reader, len(reader)), *columns])
        except ExpressionError as error:
            raise DataError(f"filter.{key} of {reader.name!r}: {error}") from error


def select(items: Windows, filter: Filter) -> Windows:
    """Those of the items that a filter leaves.

    Raises:
        DataError: nothing is left, and what each condition left; a name that no episode knows; an episode that does not
            say whether it succeeded though that is asked for.
    """
    if not filter.identity:
        return items
    store = items.store
    left = _chosen(_Left(items.name, items.episodes, np.diff(store.starts), store.episodes), filter)
    source, rows = _Rows(store), None
    if filter.idle or filter.frames is not None:
        frames = [np.ones(left.length(episode), np.bool_) for episode in left.episodes.tolist()]
        if filter.idle:
            frames = left.keep_frames([a & b for a, b in zip(frames, _moving(left, source), strict=True)], "idle")
        if filter.frames is not None:
            where = _where(filter.frames, left, source)
            frames = left.keep_frames([a & b for a, b in zip(frames, where, strict=True)], f"frames {filter.frames!r}")
        rows = np.concatenate([source.start(e) + np.flatnonzero(f) for e, f in zip(left.episodes, frames, strict=True)])
        left.episodes = left.episodes[[bool(kept.any()) for kept in frames]]
    return items.restricted(left.episodes, rows, filter.identity)


class _Tables(NamedTuple):
    """(T, D) and (T, A) of one episode."""

    state: Float32
    action: Float32


class _Left:
    """The episodes that are left, what is known of them, and what each condition has left so far.

    Args:
        name: of the dataset.
        episodes: numbers of those to choose from.
        lengths: (E,) frames of every episode of the dataset.
        facts: what each of them says of itself.
    """

    def __init__(self, name: str, episodes: Int64, lengths: Int64, facts: Sequence[Mapping[str, Any]]) -> None:
        self.name = name
        self.episodes = episodes
        self._lengths = lengths
        self._facts = facts
        self._trail = [f"{len(episodes)} episodes"]

    @property
    def names(self) -> list[str]:
        """Of the facts that any episode has."""
        return _names_of(self._facts)

    def facts(self, episode: int) -> dict[str, Any]:
        return {**self._facts[episode], "index": episode, "length": self.length(episode)}

    def length(self, episode: int) -> int:
        return int(self._lengths[episode])

    def keep(self, kept: Bool, condition: str) -> None:
        self.episodes = self.episodes[kept]
        self._trail.append(f"{len(self.episodes)} after {condition}")
        self._require(len(self.episodes))

    def keep_frames(self, frames: list[Bool], condition: str) -> list[Bool]:
        count = sum(int(kept.sum()) for kept in frames)
        self._trail.append(f"{count} frames after {condition}")
        self._require(count)
        return frames

    def error(self, key: str, message: str) -> DataError:
        return DataError(f"filter.{key} of {self.name!r}: {message}")

    def _require(self, count: int) -> None:
        if not count:
            raise DataError(
                f"filter of {self.name!r}: expected something to be left, got nothing: {', '.join(self._trail)}. "
                "Loosen the last condition."
            )


class _Rows:
    """The rows of a store's episodes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.features = store.features

    def start(self, episode: int) -> int:
        return int(self._store.starts[episode])

    def tables(self, episode: int) -> _Tables:
        rows = slice(self.start(episode), self.start(episode + 1))
        return _Tables(self._store.state[rows], self._store.action[rows])


def _facts_of(reader: Reader, index: int) -> dict[str, Any]:
    episode = reader.episode(index)
    known = {"task": episode.task, "success": episode.success, "seed": episode.seed}
    return {**known, **episode.extra, **reader.metadata(index)}


def _names_of(facts: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(("index", "length", *(name for each in facts for name in each))))


def _fact_names(reader: Reader, count: int) -> list[str]:
    """What the first episodes say of themselves."""
    return _names_of(_facts_of(reader, index) for index in range(min(count, len(reader))))


def _chosen(left: _Left, filter: Filter) -> _Left:
    """`left` after the conditions on episodes."""
    if filter.episodes is not None:
        left.keep(_named(filter.episodes, left), f"episodes {_shown(filter.episodes)}")
    if filter.success:
        left.keep(_succeeded(left), "success")
    if filter.first is not None:
        left.keep(np.arange(len(left.episodes)) < filter.first, f"first {filter.first}")
    return left


def _named(wanted: tuple[int, ...] | str, left: _Left) -> Bool:
    """(E,) of the episodes left, those that are named or for which an expression is true."""
    if isinstance(wanted, str):
        expression = _parse("episodes", wanted)
        unknown = dict.fromkeys(left.names)
        answers = [
            _evaluated("episodes", expression, left, episode, {**unknown, **left.facts(episode)})
            for episode in left.episodes.tolist()
        ]
        return np.array(answers, np.bool_)
    known = set(left.episodes.tolist())
    missing = next((number for number in wanted if number not in known), None)
    if missing is not None:
        raise left.error("episodes", f"expected numbers of its episodes, 0 … {max(known)}, got {missing}.")
    return np.isin(left.episodes, wanted)


def _succeeded(left: _Left) -> Bool:
    successes = [left.facts(episode).get("success") for episode in left.episodes.tolist()]
    unknown = [episode for episode, success in zip(left.episodes, successes, strict=True) if success is None]
    if unknown:
        raise left.error(
            "success",
            f"expected every episode to say whether it solved its task, got {len(unknown)} of {len(successes)} that do "
            f"not, the first is {unknown[0]}. Name the episodes you want in filter.episodes, or record their success.",
        )
    return np.array(successes, np.bool_)


def _moving(left: _Left, source: _Rows) -> list[Bool]:
    """(T,) of each episode: between its first and its last movement."""
    motion = Motion.measured(source.tables(episode) for episode in left.episodes.tolist())
    masks = []
    for episode in left.episodes.tolist():
        first, end = motion.span(source.tables(episode))
        timestep = np.arange(left.length(episode))
        masks.append((first <= timestep) & (timestep < end))
    return masks


def _where(text: str, left: _Left, source: _Rows) -> list[Bool]:
    """(T,) of each episode: where an expression over its columns is true."""
    expression, unknown = _parse("frames", text), dict.fromkeys(left.names)
    masks = []
    for episode in left.episodes.tolist():
        values = {**unknown, **left.facts(episode), **_columns(source, episode)}
        answer = _evaluated("frames", expression, left, episode, values)
        masks.append(np.broadcast_to(np.asarray(answer, np.bool_), left.length(episode)))
    return masks


def _columns(source: _Rows, episode: int) -> dict[str, NDArray[Any]]:
    """(T,) each: the columns of an episode by name."""
    features, tables = source.features, source.tables(episode)
    length = len(tables.action)
    steps = np.linalg.norm(np.diff(tables.state.astype(np.float64), axis=0), axis=1) * features.fps
    last = steps[-1:] if length > 1 else np.zeros(1)  # the last frame has no next one
    timestep = np.arange(length)
    columns = [timestep, timestep / features.fps, np.concatenate([steps, last]), *tables.state.T, *tables.action.T]
    return dict(zip(_column_names(features), columns, strict=True))


def _column_names(features: Features) -> list[str]:
    state = features.state.names if features.state else ()
    named = [*(f"state.{name}" for name in state), *(f"action.{name}" for name in features.action.names)]
    return ["timestep", "time", "speed", *named]


def _parse(key: str, text: str) -> Expression:
    try:
        return Expression.parse(text)
    except ExpressionError as error:
        raise ConfigError(f"filter.{key}: {error}") from error


def _evaluated(key: str, expression: Expression, left: _Left, episode: int, values: Mapping[str, Any]) -> Any:
    try:
        return expression.evaluate(values)
    except ExpressionError as error:
        unknown = any(name not in values for name in expression.names)
        raise left.error(key, str(error) if unknown else f"episode {episode}: {error}") from error


def _shown(wanted: tuple[int, ...] | str) -> str:
    return repr(wanted) if isinstance(wanted, str) else f"({len(wanted)} numbers)"
