"""`menura check run`: what was trained is what is evaluated is what is served, shown on samples of its data; of a
checkpoint that was converted, what there is of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from menura.checkpoint import Checkpoint, load_checkpoint
from menura.checkpoint.golden import GOLDEN_FILE, Golden
from menura.checkpoint.save import RUN_FILE
from menura.config import load_task
from menura.data import Mixture, Reader, Windows, collate
from menura.errors import MenuraError
from menura.meta_policy import MetaPolicy
from menura.policies.checking.result import CheckResult
from menura.policies.contract import observation
from menura.processing.spaces import Spaces
from menura.serving.background import serving
from menura.serving.client import Client
from menura.serving.server import PolicyServer
from menura.training.ingredients import Ingredients, gather

SAMPLES = 8
#: Of the largest value: features of an image encoder are computed in other batches here than in the store.
TOLERANCE = 1e-4
_SEED = 0

Float32 = NDArray[np.float32]


def check_run(
    directory: str | Path, *, trust_remote_code: bool = False, project: Path | None = None
) -> list[CheckResult]:
    """Send samples of the training data through the training, the evaluation and the server path.

    Args:
        directory: a run or checkpoint; with a `run.yaml`, its datasets must still be where they were. Without one,
            as of a converted checkpoint, evaluation and server are asked what it was asked when it was saved.
        trust_remote_code: allow code stored in the checkpoint to run when it is not in the project.
        project: where the user's classes are looked for; where `run.yaml` says, when None.

    Returns:
        One result a check, in order; the first that fails ends the list, for those after it stand on it.
    """
    results: list[CheckResult] = []
    try:
        for name, message in _checks(Path(directory), trust_remote_code, project):
            results.append(CheckResult(name, ok=not message, message=message))
            if message:
                break
    except MenuraError as error:
        results.append(CheckResult("run", ok=False, message=str(error)))
    return results


def _checks(directory: Path, trust_remote_code: bool, project: Path | None) -> Iterator[tuple[str, str]]:
    """(what was checked, what is wrong or the empty text)"""
    checkpoint = load_checkpoint(directory, trust_remote_code=trust_remote_code, project=project)
    yield "files, statistics and golden answers are those that were saved", ""

    if not (checkpoint.directory / RUN_FILE).is_file():
        golden = Golden(checkpoint.directory / GOLDEN_FILE)
        meta = MetaPolicy(checkpoint.policy, checkpoint.processor, dataset=checkpoint.processor.dataset_names[0])
        spaces = checkpoint.processor.spaces_of(0)
        yield _served(meta, spaces, golden.observation(), len(golden.tensors["actions"]))
        yield f"not checked: training, for there is no {RUN_FILE} (a converted checkpoint has none)", ""
        return
    from transformers import set_seed  # which imports peft, too

    task = load_task(checkpoint.directory / RUN_FILE, project=project, need_data=True)
    set_seed(checkpoint.manifest.seed)  # as training did: an image encoder may have random weights
    trained = gather(task, seed=checkpoint.manifest.seed, hold_out=False)
    changed = [
        name for name, print_ in trained.fingerprints.items() if checkpoint.manifest.datasets.get(name) != print_
    ]
    yield "the datasets are those it was trained on", _changed_datasets(changed)

    parts = trained.train.parts if isinstance(trained.train, Mixture) else [trained.train]
    for number, part in enumerate(parts):
        for name, message in checks_of_dataset(checkpoint, trained, number, part):
            yield name if len(parts) == 1 else f"{part.name}: {name}", message


def checks_of_dataset(
    checkpoint: Checkpoint, trained: Ingredients, number: int, part: Windows
) -> Iterator[tuple[str, str]]:
    """(what was checked, what is wrong or the empty text): samples of one dataset, the `number`-th, through training,
    evaluation and server."""
    reader = trained.readers[number]
    indices = np.linspace(0, len(part) - 1, min(SAMPLES, len(part))).astype(np.int64)
    meta = MetaPolicy(checkpoint.policy, checkpoint.processor, dataset=part.name)
    items = {**part.__getitems__(indices), "dataset_id": np.full(len(indices), number)}
    batch = trained.processor.inputs(collate(items))
    training = observation(batch)
    raw, is_pad = _raw_observations(reader, part, indices, meta)
    spaces = trained.processor.spaces_of(number)
    targets: Float32 = trained.processor.actions(batch["actions"], number, observation=raw).numpy()
    recorded = _recorded_actions(reader, part, indices)
    yield (
        "the actions that are trained are those recorded",
        _unequal(spaces, recorded, targets, "what is trained", of="the source"),
    )

    evaluation = meta.inputs(raw, is_pad)
    yield "training and evaluation give the policy the same inputs", _different(training, evaluation)

    with torch.inference_mode():
        normalized = meta.infer(training, generator=_generators(meta, len(indices)))
    expected: Float32 = trained.processor.actions(normalized, number, observation=raw).numpy()
    actions = meta.predict(raw, generator=_generators(meta, len(indices)), observation_is_pad=is_pad)
    yield "training and evaluation answer the same actions", _unequal(spaces, expected, actions, "evaluation")

    yield _served(meta, spaces, raw, len(indices))


def _served(meta: MetaPolicy, spaces: Spaces, raw: Mapping[str, Any], rows: int) -> tuple[str, str]:
    """Whether a server answers these observations as evaluation does, as of `_checks`."""
    alone = np.stack([meta.predict(_row(raw, i), generator=_generators(meta, 1))[0] for i in range(rows)])
    with serving(PolicyServer(meta, port=0)) as server, Client(server.address) as client:
        served = np.stack([client.infer(_request(raw, i))["actions"] for i in range(rows)])
    if _generators(meta, 1) is None:
        return "the server answers the same actions", _unequal(spaces, alone, served, "the server", of="evaluation")
    wrong = served.shape != alone.shape or not np.isfinite(served).all()
    message = f"expected finite numbers of shape {alone.shape}, got shape {served.shape}." if wrong else ""
    return "the server answers as many actions, drawn from noise of its own", message


def _raw_observations(
    reader: Reader, part: Windows, indices: NDArray[np.int64], meta: MetaPolicy
) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """What an environment would have shown at these frames, read from the source and not from the store; and which
    of the observations (B, O) repeat their episode's first."""
    batch = part.__getitems__(indices)
    offsets = np.asarray(meta.observation_offsets)
    states, tasks = [], []
    images: dict[str, list[Any]] = {camera: [] for camera in meta.required_cameras}
    for index, timestep in zip(indices, batch["timestep"], strict=True):
        episode = reader.episode(part.episode_of(int(index)))
        steps = np.clip(timestep + offsets, 0, len(episode) - 1)
        picked: Any = steps if len(steps) > 1 else int(steps[0])
        states.append(episode.state[picked])
        tasks.append(episode.task)
        for camera, frames in images.items():
            frames.append(np.asarray(episode.images[camera][picked]))
    observations = {
        "state": np.stack(states),
        "images": {camera: np.stack(frames) for camera, frames in images.items()},
        "task": tasks,
        "timestep": batch["timestep"],
    }
    return observations, batch["timestep"][:, None] + offsets < 0


def _recorded_actions(reader: Reader, part: Windows, indices: NDArray[np.int64]) -> Float32:
    """(B, T, A), or (B, A): the actions of these items, read from the source."""
    chunks = []
    for index, timestep in zip(indices, part.__getitems__(indices)["timestep"], strict=True):
        action = reader.episode(part.episode_of(int(index))).action
        offsets: Any = 0 if part.action_offsets is None else part.action_offsets
        chunks.append(action[np.clip(timestep + offsets, 0, len(action) - 1)])
    return np.stack(chunks)


def _row(raw: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One observation of those that `MetaPolicy.predict` takes, as a batch."""
    return _picked(raw, slice(row, row + 1))


def _request(raw: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One observation of those that `MetaPolicy.predict` takes, as a client sends it."""
    return _picked(raw, row)


def _picked(raw: Mapping[str, Any], rows: int | slice) -> dict[str, Any]:
    images = {camera: frames[rows] for camera, frames in raw.get("images", {}).items()}
    return {key: raw[key][rows] for key in ("state", "task", "timestep") if key in raw} | {"images": images}


def _generators(meta: MetaPolicy, rows: int) -> list[torch.Generator] | None:
    made = [meta.generator(_SEED + row) for row in range(rows)]
    return [generator for generator in made if generator is not None] or None


def _changed_datasets(names: list[str]) -> str:
    return f"{', '.join(names)}: expected the content it was trained on, got another. Train anew." if names else ""


def _different(training: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    for key in evaluation:
        mine, theirs = training.get(key), evaluation[key]
        if isinstance(theirs, torch.Tensor) and isinstance(mine, torch.Tensor) and mine.shape == theirs.shape:
            gap = float((mine.double() - theirs.double()).abs().max()) if mine.numel() else 0.0
            if gap > TOLERANCE * max(1.0, float(theirs.double().abs().max())):
                return f"{key}: expected what training gives, got values up to {gap:.3g} away."
        elif isinstance(theirs, torch.Tensor):
            got = tuple(mine.shape) if isinstance(mine, torch.Tensor) else mine
            return f"{key}: expected shape {got} as training gives, got {tuple(theirs.shape)}."
        elif mine != theirs:
            return f"{key}: expected {mine} as training gives, got {theirs}."
    return ""


def _unequal(spaces: Spaces, expected: Float32, got: Float32, who: str, of: str = "training") -> str:
    """Both (B, [T,] A), of `of` and of `who`."""
    if expected.shape != got.shape:
        return f"actions: expected shape {expected.shape}, got {got.shape} from {who}."
    expected, got = spaces.comparable(expected)[0], spaces.comparable(got)[0]
    gap = np.abs(expected - got)
    if gap.max() <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        return ""
    steps = gap.max(axis=0).reshape(-1, gap.shape[-1])  # (T, A)
    step, dimension = np.unravel_index(int(steps.argmax()), steps.shape)
    where = f"step {step}, dimension {dimension}"
    return f"actions: expected those of {of}, got up to {gap.max():.3g} away from {who} ({where})."
