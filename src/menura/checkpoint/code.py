"""The code of a checkpoint: copied beside the weights, found again on loading."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save, get_class_from_dynamic_module

from menura import components
from menura.checkpoint.adapters import BASE, has_adapters, save_adapters
from menura.checkpoint.manifest import MANIFEST_FILE, Code
from menura.checkpoint.start import Start
from menura.checkpoint.travelling import laid_flat, travelling_code
from menura.errors import CheckpointError, ComponentError, ContractError
from menura.policies.quiet import no_progress_bars

# Packages whose classes are there wherever a checkpoint is loaded, so that no copy of them is made.
INSTALLED = ("menura", "torch", "transformers")


def save_policy(policy: PreTrainedModel, directory: Path, start: Start | None = None) -> None:
    """`save_pretrained` with the source files of the policy and its config, as `AutoModel` expects them.

    Of a policy with adapters these are saved, and the policy they were trained on, unless `start` holds all of it.
    """
    config_file, policy_file = _require_file(type(policy.config)), _require_file(type(policy))
    policy.config.auto_map = {
        "AutoConfig": f"{config_file.stem}.{type(policy.config).__name__}",
        "AutoModel": f"{policy_file.stem}.{type(policy).__name__}",
    }
    with no_progress_bars():
        if has_adapters(policy):
            save_adapters(policy, directory, start)
        else:
            # By the names they have in the policy, not on the Hub: a training that goes on looks for those.
            policy.save_pretrained(directory, save_original_format=False)
    folders = [directory, directory / BASE] if (directory / BASE).is_dir() else [directory]
    for name, text in {**travelling_code(config_file), **travelling_code(policy_file)}.items():
        for folder in folders:
            (folder / name).write_text(text, encoding="utf-8")


def policy_code(policy: PreTrainedModel, reference: str | None) -> Code:
    class_ = type(policy)
    return Code(class_.__name__, reference or class_.__name__, class_.__module__, _require_file(class_).name)


def save_encoder(encoder: torch.nn.Module, reference: str, directory: Path) -> Code:
    """Copy the source of an image encoder, unless it belongs to an installed package."""
    class_ = type(encoder)
    if class_.__module__.partition(".")[0] in INSTALLED:
        return Code(class_.__name__, reference, class_.__module__, None)
    file = _require_file(class_)
    custom_object_save(encoder, directory)
    return Code(class_.__name__, reference, class_.__module__, file.name)


def find_class(kind: str, code: Code, directory: Path, project: Path, *, trust_remote_code: bool) -> type:
    """Menura's own class from the package, a user's from the project, else the checkpoint's copy if that is trusted."""
    if code.module.partition(".")[0] in INSTALLED:
        return components.load(kind, f"{code.module}:{code.name}", project)
    try:
        found = components.find(kind, code.reference, project)
        _refuse_code_of_checkpoints(found, project)
    except ComponentError as problem:
        if code.file is not None and trust_remote_code:
            return _load_copy(code, directory)
        raise CheckpointError(
            f"{directory}: expected the class {code.name} in the project {project}, got: {problem} "
            f"Run this in the project it was trained in, or allow the checkpoint's own {code.file} to run: "
            "trust_remote_code=True (--trust_remote_code)."
        ) from problem
    return found.load()


def _refuse_code_of_checkpoints(found: components.Found, project: Path) -> None:
    """A manifest may name any file. Only those of the project are the user's own, and no checkpoint's copy is."""
    file = found.file
    if file is None or (found.module is not None and not file.is_relative_to(project.resolve())):
        return  # an installed package
    copied = any((folder / MANIFEST_FILE).exists() for folder in file.parents)
    if copied or not file.is_relative_to(project.resolve()):
        raise ComponentError(f"{found.name} in {file}, which is not a file of the project.")


def _load_copy(code: Code, directory: Path) -> type:
    assert code.file is not None
    try:
        copy: type = get_class_from_dynamic_module(f"{Path(code.file).stem}.{code.name}", str(directory))
    except (ImportError, AttributeError, SyntaxError) as problem:
        raise CheckpointError(
            f"{directory}/{code.file}: expected {code.name}, got: {problem} "
            "Code that travels imports installed packages, and its neighbours as `from .name import …`."
        ) from problem
    return copy


def differs_from_copy(class_: type, code: Code, directory: Path) -> str | None:
    """The source file of `class_`, when it is not what the checkpoint holds a copy of."""
    file = getattr(sys.modules.get(class_.__module__), "__file__", None)
    if file is None or code.file is None:
        return None
    copy = directory / code.file
    return file if copy.is_file() and copy.read_text(encoding="utf-8") != laid_flat(Path(file)) else None


def _require_file(class_: type) -> Path:
    module: Any = sys.modules.get(class_.__module__)
    file = getattr(module, "__file__", None)
    if file is None or class_.__module__ == "__main__":
        raise ContractError(
            f"{class_.__name__}: expected a class defined in a file of its own, got one defined in "
            f"{class_.__module__}. Move it to policy/<name>.py, so that its code can travel with the weights."
        )
    return Path(file)
