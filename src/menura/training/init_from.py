"""`training.init_from`: begin with the weights of another checkpoint, and say what became of each."""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from menura import conversion
from menura.checkpoint import MANIFEST_FILE, Manifest, load_checkpoint
from menura.checkpoint.adapters import CONFIG_FILE as ADAPTERS
from menura.checkpoint.adapters import merge_adapters
from menura.checkpoint.manifest import check_hashes
from menura.checkpoint.start import Start
from menura.config import ResolvedTask
from menura.errors import CheckpointError, ConfigError
from menura.features import Features
from menura.files import read_json, sha256
from menura.processing.processor import read_settings
from menura.processing.spaces import Spaces
from menura.training.run_directory import is_main_process

_LISTED = 6  # names or groups of names in one line of the report
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Source:
    """Weights to begin with.

    Attributes:
        directory: where its files lie.
        kind: what it is, in words.
        weights: name -> tensor.
        files: of its weights, when they are as they lie on the disk -> sha256.
        trained: what its state and actions mean; None when it does not say.
        chunk_size: of its config.
    """

    directory: Path
    kind: str
    weights: Mapping[str, Tensor]
    files: Mapping[str, str] = field(default_factory=dict)
    trained: Features | None = None
    chunk_size: int | None = None


def begin_from(task: ResolvedTask, policy: PreTrainedModel, given: str | Mapping[str, Any], trained: Features) -> Start:
    """Give a policy the weights of another checkpoint, as far as they fit; prints what became of each.

    A weight of the same name and shape is taken as it is. One whose shape differs along one axis, of which both
    checkpoints know what it counts, is taken in part: rows of state or action dimensions by the dimensions' names,
    steps of a chunk from the first on; the rest begins as the policy was made. Anything else is not taken.

    Raises:
        ConfigError: nothing fits, or not all that `require` names.
        CheckpointError: there is no checkpoint there, or it is damaged.
    """
    path = given if isinstance(given, str) else str(given["path"])
    required = () if isinstance(given, str) else given.get("require", ())
    where = task.locate("training.init_from")
    source = open_source(path, task, where)
    start = take_over(policy, source, path, trained)
    if not start.matched and not start.resized:
        raise ConfigError(
            f"training.init_from: expected weights of {type(policy).__name__} in {path}, got none that fits: there "
            f"{_folded(start.unused)}; here {_folded(start.new)} ({where})"
        )
    names = [name for name, _ in policy.named_parameters()]
    for pattern in required:
        wanted = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if missing := [name for name in wanted if name not in start.matched] or ([] if wanted else [pattern]):
            raise ConfigError(
                f"training.init_from.require: expected {path} to hold all of {pattern}, got it without "
                f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''} ({where})"
            )
    if is_main_process():
        report(start, policy, Console())
    return start


# ---- what is there ----


def open_source(path: str, task: ResolvedTask, where: str) -> Source:
    """A run or checkpoint of Menura, a directory of `save_pretrained`, another program's checkpoint, or a Hub id."""
    directory = _directory(path, where)
    if (directory / MANIFEST_FILE).is_file():
        return _menura(directory, task)
    if conversion.is_foreign(directory):
        foreign = conversion.load_foreign_policy(directory)
        chunk_size = getattr(foreign.policy.config, "chunk_size", None)
        kind = f"of {foreign.origin}, converted"
        return Source(directory, kind, foreign.policy.state_dict(), {}, foreign.processor.trained, chunk_size)
    if (directory / "config.json").is_file():
        weights, files = _read_weights(directory)
        return Source(directory, "of transformers", weights, files, None, _chunk_size(directory))
    Manifest.read(directory)  # says what is missing, and where a checkpoint of an unfinished run lies
    raise AssertionError("a directory without a manifest is refused")


def _menura(directory: Path, task: ResolvedTask) -> Source:
    check_hashes(directory, Manifest.read(directory))
    settings = read_settings(directory)
    trained = settings.features
    if settings.dataset_features is None:
        trained = Spaces.of(settings, settings.features).trained
    if (directory / ADAPTERS).is_file():
        policy = load_checkpoint(directory, verify=False, project=task.project).policy
        merge_adapters(policy)
        return Source(
            directory, "of Menura, its adapters merged", policy.state_dict(), {}, trained, _chunk_size(directory)
        )
    weights, files = _read_weights(directory)
    return Source(directory, "of Menura", weights, files, trained, _chunk_size(directory))


def _directory(path: str, where: str) -> Path:
    directory = Path(path).expanduser()
    if directory.is_dir():
        return directory.resolve()
    if path.count("/") != 1 or path.startswith(("/", ".", "~")):
        raise ConfigError(f"training.init_from: expected a checkpoint, got no such directory: {path} ({where})")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, allow_patterns=["*.safetensors", "*.json"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as problem:
        raise ConfigError(
            f"training.init_from: expected a directory or a repository of the Hub, got {path!r}: "
            f"{str(problem).splitlines()[0]} ({where})"
        ) from problem


def _read_weights(directory: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    index = directory / _INDEX
    names = sorted(set(read_json(index, CheckpointError)["weight_map"].values())) if index.is_file() else [_WEIGHTS]
    weights: dict[str, Tensor] = {}
    for name in names:
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory}: expected its weights in {name}, got no such file.")
        weights |= load_file(directory / name)
    return weights, {name: sha256(directory / name) for name in names}


def _chunk_size(directory: Path) -> int | None:
    value = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("chunk_size")
    return value if isinstance(value, int) else None


# ---- what is taken ----


@torch.no_grad()
def take_over(policy: PreTrainedModel, source: Source, path: str, trained: Features) -> Start:
    """Copy what fits into the policy."""
    own = policy.state_dict()
    tied = getattr(policy, "all_tied_weights_keys", {})
    kinds = _kinds(source, trained, getattr(policy.config, "chunk_size", None))
    matched: list[str] = []
    resized: dict[str, str] = {}
    mismatched: dict[str, str] = {}
    for name, theirs in source.weights.items():
        if name not in own or name in tied:
            continue
        if theirs.shape == own[name].shape:
            own[name].copy_(theirs)
            matched.append(name)
            continue
        taken = _resized(name, theirs, own[name], kinds)
        if isinstance(taken, str):
            mismatched[name] = f"{_shape(theirs)} there, {_shape(own[name])} here{taken}"
        else:
            resized[name] = taken.copy(theirs, own[name])
    return Start(
        source=path,
        directory=str(source.directory),
        kind=source.kind,
        files=dict(source.files),
        matched=tuple(matched),
        resized=resized,
        mismatched=mismatched,
        new=tuple(name for name in own if name not in source.weights and name not in tied),
        unused=tuple(name for name in source.weights if name not in own),
        notes=_notes(source, trained),
    )


@dataclass(frozen=True)
class Overlap:
    """Which places of an axis are the same thing in both: (there, here)."""

    axis: int
    what: str
    pairs: tuple[tuple[int, int], ...]
    names: tuple[str, ...]

    def copy(self, theirs: Tensor, ours: Tensor) -> str:
        there, here = (torch.tensor(places) for places in zip(*self.pairs, strict=True))
        ours.index_copy_(self.axis, here.to(ours.device), theirs.index_select(self.axis, there).to(ours))
        rest = ours.shape[self.axis] - len(self.pairs)
        listed = (
            f" ({', '.join(self.names[:_LISTED])}{', …' if len(self.names) > _LISTED else ''})" if self.names else ""
        )
        return f"{self.what} {len(self.pairs)} of {theirs.shape[self.axis]}{listed}, {rest} begin anew"


def _kinds(source: Source, trained: Features, chunk_size: int | None) -> list[tuple[str, Any, Any]]:
    """What an axis may count: (what, there, here), names or a length."""
    kinds: list[tuple[str, Any, Any]] = []
    if source.trained is not None:
        theirs, ours = source.trained, trained
        kinds.append(("action", theirs.action.names, ours.action.names))
        if theirs.state is not None and ours.state is not None:
            kinds.append(("state", theirs.state.names, ours.state.names))
    if source.chunk_size is not None and chunk_size is not None:
        kinds.append(("steps", source.chunk_size, chunk_size))
    return kinds


def _resized(name: str, theirs: Tensor, ours: Tensor, kinds: list[tuple[str, Any, Any]]) -> Overlap | str:
    """What of a weight can be taken safely; else what to add to the reason why not."""
    if theirs.dim() != ours.dim():
        return ""
    axes = [axis for axis in range(ours.dim()) if theirs.shape[axis] != ours.shape[axis]]
    if len(axes) != 1:
        return ""
    sizes = theirs.shape[axes[0]], ours.shape[axes[0]]
    found = [_overlap(axes[0], *kind) for kind in kinds if _lengths(*kind[1:]) == sizes]
    if len({overlap.pairs for overlap in found}) > 1:  # the weight's name may tell which of them it is
        found = [overlap for overlap in found if overlap.what in name] or found
    if len({overlap.pairs for overlap in found}) > 1:
        return f", where {' and '.join(overlap.what for overlap in found)} could be meant"
    if not found:
        return ""
    return found[0] if found[0].pairs else f", no {found[0].what} name in common"


def _lengths(there: Any, here: Any) -> tuple[int, int]:
    return (there, here) if isinstance(there, int) else (len(there), len(here))


def _overlap(axis: int, what: str, there: Any, here: Any) -> Overlap:
    if isinstance(there, int):
        return Overlap(axis, what, tuple((step, step) for step in range(min(there, here))), ())
    names = tuple(name for name in here if name in there)
    return Overlap(axis, what, tuple((there.index(name), here.index(name)) for name in names), names)


def _notes(source: Source, trained: Features) -> tuple[str, ...]:
    """What weights of equal shapes do not tell."""
    if source.trained is None:
        return ("It does not say what its state and actions mean: that they mean the same here is taken on trust.",)
    notes = []
    for what in ("state", "action"):
        theirs, ours = getattr(source.trained, what), getattr(trained, what)
        of_one_width = theirs is not None and ours is not None and len(theirs.names) == len(ours.names)
        if of_one_width and theirs.names != ours.names:
            notes.append(f"The names of its {what} differ, and were taken by position: {_pairs(theirs, ours)}.")
    return tuple(notes)


def _pairs(theirs: Any, ours: Any) -> str:
    pairs = [f"{a} as {b}" for a, b in zip(theirs.names, ours.names, strict=True) if a != b]
    return ", ".join(pairs[:_LISTED]) + (", …" if len(pairs) > _LISTED else "")


# ---- what is said ----


def report(start: Start, policy: PreTrainedModel, console: Console) -> None:
    """What became of each weight; every name is in `init_from.json`."""
    own = policy.state_dict()
    numbers = sum(own[name].numel() for name in start.matched)
    lines = [f"Begins with {start.source} (a checkpoint {start.kind}):"]
    lines.append(f"  taken      {len(start.matched)} of {len(own)} weights, {numbers:,} numbers")
    lines += [f"  resized    {name}: {how}" for name, how in start.resized.items()]
    lines += [f"  not taken  {name}: {why}" for name, why in start.mismatched.items()]
    for what, names in (("new", start.new), ("unused", start.unused)):
        if names:
            lines.append(f"  {what:<9}  {_folded(names)}")
    lines += [f"  note       {note}" for note in start.notes]
    lines.append("  Statistics and everything else that normalizes are those of the new data.")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _folded(names: Iterable[str]) -> str:
    """`backbone (62), action_head (2)`"""
    counts = Counter(name.partition(".")[0] for name in names)
    listed = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:_LISTED])
    return (listed + (", …" if len(counts) > _LISTED else "")) or "nothing"


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
