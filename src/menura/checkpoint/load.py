"""Reading a checkpoint, and asking it to prove itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from menura.checkpoint.adapters import attach_adapters, base_directory
from menura.checkpoint.code import differs_from_copy, find_class
from menura.checkpoint.golden import GOLDEN_FILE, Golden, replay
from menura.checkpoint.manifest import MANIFEST_FILE, Manifest, check_hashes, library_versions
from menura.errors import CheckpointError, ContractError
from menura.features import Features
from menura.files import recover_directory, sha256
from menura.policies.channels_last import convolve_channels_last
from menura.policies.contract import completed, require_policy_class
from menura.policies.inference import Inference
from menura.policies.needs import Needs
from menura.policies.quiet import no_progress_bars
from menura.processing.processor import Processor, read_settings


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, loaded.

    Attributes:
        policy, processor: ready to be asked, on the device that was wanted.
        manifest: what `menura.json` says.
        directory: where it lies.
        hash: the sha256 of its manifest, which holds the hash of every other file: the checkpoint's identity.
    """

    policy: PreTrainedModel
    processor: Processor
    manifest: Manifest
    directory: Path
    hash: str

    @property
    def features(self) -> Features:
        return self.manifest.features


def load_checkpoint(
    directory: str | Path,
    *,
    device: str | torch.device = "cpu",
    verify: bool = True,
    trust_remote_code: bool = False,
    project: Path | None = None,
) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Args:
        directory: the checkpoint, or a finished run.
        device: where the policy is put.
        verify: replay the golden observations (`verify`); hashes, statistics and widths are always checked.
        trust_remote_code: allow the copy of the policy's code in the checkpoint to run, when the project has none.
        project: where a user's class is looked for; the working directory, when None.

    Raises:
        CheckpointError: a file is missing or was changed, parts contradict each other, the code cannot be found, or
            the policy no longer answers what it answered.
        StatisticsError: the statistics are missing, of the wrong width, or not finite.
    """
    directory = Path(directory)
    if not directory.exists():
        recover_directory(directory)
    manifest = Manifest.read(directory)
    check_hashes(directory, manifest)
    project = Path.cwd() if project is None else Path(project)
    processor = _load_processor(directory, manifest, project, trust_remote_code)
    policy = _load_policy(directory, manifest, project, trust_remote_code)
    if policy.device != torch.device(device):
        policy = policy.to(device)  # type: ignore[arg-type]
    _check_agreement(directory, policy, processor, manifest)
    checkpoint = Checkpoint(policy.eval(), processor.to(device), manifest, directory, sha256(directory / MANIFEST_FILE))
    if verify:
        verify_checkpoint(checkpoint)
    return checkpoint


def verify_checkpoint(checkpoint: Checkpoint) -> None:
    """Replay the golden observations: first the processed inputs, then the model's outputs, then physical actions.

    The answers must agree within 1e-4 (normalized units; 2e-2 on another kind of device than the one that saved them,
    pixels within two grey levels). CheckpointError names the first stage that changed, and what may have changed it.
    """
    manifest, directory = checkpoint.manifest, checkpoint.directory
    inference = Inference(checkpoint.policy, checkpoint.processor, dataset=checkpoint.processor.dataset_names[0])
    golden = Golden(directory / GOLDEN_FILE)
    changed = replay(golden, inference, same_device=inference.device.type == manifest.device)
    if changed is not None:
        raise CheckpointError(
            f"{directory}: expected the answers it gave when it was saved, but {changed}. "
            + _suspects(checkpoint, stage=changed.partition(":")[0])
        )


def _suspects(checkpoint: Checkpoint, stage: str) -> str:
    """What is known to be different from when it was saved."""
    suspects = []
    source = differs_from_copy(type(checkpoint.policy), checkpoint.manifest.policy, checkpoint.directory)
    if source is not None and stage == "model outputs":
        suspects.append(f"{source} is not the code it was saved with ({checkpoint.manifest.policy.file})")
    now = library_versions()
    suspects += [
        f"{name} was {was}, is {now.get(name)}"
        for name, was in checkpoint.manifest.versions.items()
        if now.get(name) != was
    ]
    if suspects:
        return f"Note that {'; '.join(suspects)}."
    if stage == "model outputs":
        return "Its weights or the code of the policy changed."
    return "Its statistics or its processor's settings changed."


def _load_processor(directory: Path, manifest: Manifest, project: Path, trust_remote_code: bool) -> Processor:
    encoder: torch.nn.Module | None = None
    if manifest.image_encoder is not None:
        class_ = find_class(
            "image_encoder", manifest.image_encoder, directory, project, trust_remote_code=trust_remote_code
        )
        if not issubclass(class_, torch.nn.Module):
            raise CheckpointError(f"{directory}: expected {class_.__name__} to be a torch.nn.Module, got {class_!r}.")
        spec = read_settings(directory).image_encoder or {}
        encoder = class_(**spec.get("args", {}))
    return Processor.from_pretrained(directory, image_encoder=encoder)


def _load_policy(directory: Path, manifest: Manifest, project: Path, trust_remote_code: bool) -> PreTrainedModel:
    class_ = find_class("policy", manifest.policy, directory, project, trust_remote_code=trust_remote_code)
    config = require_policy_class(class_).from_pretrained(directory)
    with no_progress_bars():
        weights = base_directory(directory)
        loaded: Any = completed(class_).from_pretrained(weights, config=config, output_loading_info=True)
    policy: PreTrainedModel = loaded[0]
    convolve_channels_last(policy)
    info: dict[str, Any] = loaded[1]
    wrong = {kind: sorted(str(key) for key in keys) for kind, keys in info.items() if keys}
    if wrong:
        kind, keys = next(iter(wrong.items()))
        raise CheckpointError(
            f"{directory}: expected the weights of {manifest.policy.name}, got {kind.replace('_', ' ')}: "
            f"{', '.join(keys[:3])}{' …' if len(keys) > 3 else ''}. The policy's code changed since it was saved."
        )
    if weights != directory:
        attach_adapters(policy, directory)
    return policy


def _check_agreement(directory: Path, policy: PreTrainedModel, processor: Processor, manifest: Manifest) -> None:
    """The widths, cameras and steps that config, processor and manifest each state."""
    try:
        needs = Needs.of(policy.config)
    except ContractError as problem:
        raise CheckpointError(f"{directory}/config.json: {problem}") from None
    settings = processor.settings
    cameras = (
        settings.camera_names if needs.camera_names is None or "image" not in settings.keys else needs.camera_names
    )
    stated = (
        ("state_dim", getattr(policy.config, "state_dim", None), processor.trained.state_dim),
        ("action_dim", getattr(policy.config, "action_dim", None), processor.trained.action_dim),
        ("camera_names", list(cameras), list(settings.camera_names)),
        ("n_obs_steps", needs.n_obs_steps, settings.observation_steps),
    )
    for name, of_config, expected in stated:
        if of_config is not None and of_config != expected:
            raise CheckpointError(
                f"{directory}/config.json: expected {name} {expected}, as the processor has it, got {of_config}."
            )
    if settings.features != manifest.features:
        told = "; ".join(settings.features.differences(manifest.features)) or "units, cameras or the robot differ"
        raise CheckpointError(
            f"{directory}: expected one meaning of observations and actions, got another in processor_config.json "
            f"than in {MANIFEST_FILE}: {told}."
        )
