"""Writing a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel

from menura.checkpoint.card import model_card
from menura.checkpoint.code import policy_code, save_encoder, save_policy
from menura.checkpoint.golden import GOLDEN_FILE, save_golden
from menura.checkpoint.manifest import MANIFEST_FILE, Manifest, hash_files, library_versions
from menura.checkpoint.start import Start
from menura.errors import CheckpointError
from menura.features import Features
from menura.files import new_directory, write_text
from menura.policies.inference import Inference
from menura.processing.processor import Processor

RUN_FILE = "run.yaml"
CARD_FILE = "README.md"


class Task(Protocol):
    """The part of `menura.config.ResolvedTask` that a checkpoint needs."""

    @property
    def config(self) -> Any: ...
    def to_yaml(self) -> str: ...


def save_checkpoint(
    directory: str | Path,
    *,
    policy: PreTrainedModel,
    processor: Processor,
    features: Features,
    task: Task | None,
    datasets: Mapping[str, str],
    seed: int,
    golden: Mapping[str, Any],
    results: str | None = None,
    converted: str | None = None,
    start: Start | None = None,
) -> None:
    """Write a checkpoint that proves itself; complete or absent, and an older one there is replaced as a whole.

    Args:
        directory: new, or an older checkpoint. Anything else that is there is not thrown away: CheckpointError.
        policy: as of `transformers`; its class must stand in a file.
        processor: what it was trained with.
        features: what its observations and actions mean.
        task: what was run, written as `run.yaml`; None outside a run.
        datasets: name -> fingerprint of the data.
        seed: of the training.
        golden: a few raw observations, batch first, as `MetaPolicy.predict` takes them.
        results: Markdown for the model card.
        converted: of a checkpoint of another program, where it is from and what became what, in Markdown.
        start: the weights its training began with; None when they were its own.
    """
    directory = Path(directory)
    require_room(directory)
    with new_directory(directory) as temporary:
        write_checkpoint_files(
            temporary,
            policy=policy,
            processor=processor,
            features=features,
            task=task,
            datasets=datasets,
            seed=seed,
            golden=golden,
            results=results,
            converted=converted,
            start=start,
        )


def write_checkpoint_files(
    directory: str | Path,
    *,
    policy: PreTrainedModel,
    processor: Processor,
    features: Features,
    task: Task | None,
    datasets: Mapping[str, str],
    seed: int,
    golden: Mapping[str, Any],
    results: str | None = None,
    converted: str | None = None,
    start: Start | None = None,
) -> None:
    """The files of `save_checkpoint`, in a directory that exists and that the caller makes durable and renames.

    The manifest comes last and lists the files then there. The policy's mode, its device and the random state are as
    before.
    """
    directory = Path(directory)
    save_policy(policy, directory, start)
    if start is not None:
        start.write(directory)
    processor.save_pretrained(directory)
    encoder = None
    if processor.image_encoder is not None and processor.settings.image_encoder is not None:
        encoder = save_encoder(processor.image_encoder, processor.settings.image_encoder["class"], directory)
    inference = Inference(policy, processor, dataset=processor.dataset_names[0])
    save_golden(directory / GOLDEN_FILE, inference, golden)
    code = policy_code(policy, None if task is None else task.config.policy.class_)
    if task is not None:
        write_text(directory / RUN_FILE, task.to_yaml())
    card = model_card(policy, code, processor, features, datasets, seed, results, start, converted)
    write_text(directory / CARD_FILE, card)
    Manifest(
        policy=code,
        image_encoder=encoder,
        features=features,
        datasets=dict(datasets),
        seed=seed,
        device=inference.device.type,
        versions=library_versions(),
        files=hash_files(directory),
    ).write(directory)


def require_room(directory: Path) -> None:
    """CheckpointError where `save_checkpoint` would throw something away that is no checkpoint."""
    if not directory.exists():
        return
    mine = {*Manifest.read(directory).files, MANIFEST_FILE} if (directory / MANIFEST_FILE).is_file() else set()
    others = sorted(path.name for path in directory.iterdir() if path.name not in mine)
    if others:
        raise CheckpointError(
            f"{directory}: expected a new directory or an older checkpoint, got one that also holds {others[0]!r}. "
            "Choose another directory."
        )
