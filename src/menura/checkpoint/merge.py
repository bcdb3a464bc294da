"""A checkpoint with adapters as an ordinary one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from menura.checkpoint.adapters import has_adapters, merge_adapters
from menura.checkpoint.golden import GOLDEN_FILE, Golden, replay
from menura.checkpoint.load import load_checkpoint
from menura.checkpoint.save import RUN_FILE, require_room, save_checkpoint
from menura.errors import CheckpointError
from menura.policies.inference import Inference


def merge_checkpoint(
    directory: str | Path, output_dir: str | Path, *, trust_remote_code: bool = False, project: Path | None = None
) -> Path:
    """Write a checkpoint whose weights are those of `directory` with its adapters merged in.

    It answers what the original answers (within 1e-4 in normalized units, which is checked), needs no `peft`, and
    `AutoModel` loads it. The original stays.

    Raises:
        CheckpointError: there are no adapters, or merged they would answer something else.
    """
    require_room(Path(output_dir))
    checkpoint = load_checkpoint(directory, trust_remote_code=trust_remote_code, project=project)
    if not has_adapters(checkpoint.policy):
        raise CheckpointError(f"{directory}: expected adapters to merge, got a checkpoint without.")
    merge_adapters(checkpoint.policy)
    golden = Golden(checkpoint.directory / GOLDEN_FILE)
    inference = Inference(checkpoint.policy, checkpoint.processor, dataset=checkpoint.processor.dataset_names[0])
    if (changed := replay(golden, inference, same_device=True)) is not None:
        raise CheckpointError(f"{directory}: expected the same answers after merging, but {changed}.")
    manifest, run_file = checkpoint.manifest, checkpoint.directory / RUN_FILE
    save_checkpoint(
        output_dir,
        policy=checkpoint.policy,
        processor=checkpoint.processor,
        features=manifest.features,
        task=_Run(run_file.read_text(encoding="utf-8"), manifest.policy.reference) if run_file.is_file() else None,
        datasets=manifest.datasets,
        seed=manifest.seed,
        golden=golden.observation(),
    )
    return Path(output_dir)


@dataclass(frozen=True)
class _Run:
    """The `run.yaml` that is there already, as `save_checkpoint` asks for it."""

    text: str
    policy: str

    @property
    def config(self) -> Any:
        return SimpleNamespace(policy=SimpleNamespace(class_=self.policy))

    def to_yaml(self) -> str:
        return self.text
