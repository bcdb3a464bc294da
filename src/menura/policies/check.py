"""`menura check policy`: does a policy keep the contract, and if not, which line breaks it and how to mend it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from menura.components import find
from menura.errors import DataError
from menura.features import Features
from menura.policies.checking import behaviour
from menura.policies.checking.behaviour import Trial
from menura.policies.checking.failures import describe
from menura.policies.checking.result import CheckResult
from menura.policies.checking.samples import default_encoder_dim, default_features
from menura.policies.checking.source import check_source
from menura.policies.contract import Contract, Needs, fill_config, require_policy_class

if TYPE_CHECKING:
    from menura.config import TaskConfig
    from menura.data import Reader

__all__ = ["CheckResult", "check_policy"]

#: Larger images are checked at this size, unless the arguments say one: it is enough to see a policy learn, and
#: whole patches of 14, 16 and 32 pixels fit in.
CHECKED_IMAGE_SIZE = (224, 224)

#: What a policy does after a training step works, in the order of the report.
_BEHAVIOUR: tuple[tuple[str, Callable[[Trial], str]], ...] = (
    ("select_action and forward agree", behaviour.acting),
    ("rows do not influence each other", behaviour.rows_apart),
    ("padded steps do not change the loss", behaviour.padding),
    ("the batch is left as it was", behaviour.batch_kept),
    ("a seed repeats everything", behaviour.repeatable),
    ("saves and loads", behaviour.saving_and_loading),
)


def check_policy(
    policy: str | type[PreTrainedModel],
    *,
    project: Path | None = None,
    args: Mapping[str, Any] | None = None,
    features: Features | None = None,
    image_encoder_dim: int | None = None,
) -> list[CheckResult]:
    """Check a policy: read its source, build it, train it a little on synthetic samples, save, load, and let it act.

    Args:
        policy: a class, or its name as in a task's `policy.class`.
        project: where the name is looked up; the working directory when not given.
        args: as in a task's `policy.args`. When not given, arguments, features and image encoder are those of the
            project's first task that names the policy, where there is one.
        features: the shapes of the samples; when there is no data, what the arguments and the config's defaults say.
        image_encoder_dim: features per camera, for a policy that is given features instead of pixels; without an
            image encoder, what its `image_feature_dim` says.

    Returns:
        One result a check. Checks that an earlier failure makes impossible are left out.

    Raises:
        ComponentError: no class has that name.
    """
    project = project or Path.cwd()
    name = policy if isinstance(policy, str) else policy.__name__
    file, shown = _file_of(policy, project)
    results = check_source(file, name.rpartition(":")[2], shown) if file is not None else []
    if any(not result.ok for result in results):
        return [*results, CheckResult("runs", False, "not tried. Mend the above first.")]

    try:
        policy_class: Any = find("policy", policy, project).load() if isinstance(policy, str) else policy
        note = ""
        if args is None:
            args, features, image_encoder_dim, note = _task_settings(name, project, features, image_encoder_dim)
        trial = _trial(policy_class, args, features, image_encoder_dim)
    except Exception as error:  # noqa: BLE001  whatever the user's constructor raises is what is reported
        return [*results, CheckResult("builds", False, describe(error, file, shown))]
    size = sum(parameter.numel() for parameter in trial.policy.parameters())
    results.append(CheckResult("builds", True, f"{size} parameters{note}"))

    def run(name: str, check: Callable[[Trial], str]) -> CheckResult:
        try:
            return CheckResult(name, True, check(trial))
        except Exception as error:  # noqa: BLE001  whatever the user's code raises is what is reported
            return CheckResult(name, False, describe(error, file, shown))

    results.append(run("trains for one step", behaviour.training_step))
    if not results[-1].ok:
        return results
    results.extend(_learning(trial, file, shown))
    results.extend(run(name, check) for name, check in _BEHAVIOUR)
    return results


def _file_of(policy: str | type, project: Path) -> tuple[Path | None, str]:
    """The policy's source file, and what it is called in messages."""
    if isinstance(policy, str):
        file = find("policy", policy, project).file
    else:
        try:
            file = Path(inspect.getfile(policy))
        except (TypeError, OSError):  # made in a shell, without a file
            file = None
    if file is None:
        return None, "?"
    file = file.resolve()
    inside = file.is_relative_to(project.resolve())
    return file, file.relative_to(project.resolve()).as_posix() if inside else str(file)


def _task_settings(
    name: str, project: Path, features: Features | None, encoder_dim: int | None
) -> tuple[Mapping[str, Any], Features | None, int | None, str]:
    """(arguments, features, image encoder's width, note) of the project's first task that names the policy."""
    from menura.config import load_task
    from menura.data import open_dataset

    tasks = sorted((project / "configs" / "task").glob("*.y*ml"))
    for file in (file for file in tasks if name in file.read_text(encoding="utf-8")):
        config = load_task(file, project=project).config
        if config.policy.class_ != name:
            continue
        note = f", as {file.relative_to(project).as_posix()} has it"
        if features is None and config.datasets:
            used = config.datasets[:1] if config.layout is None else config.datasets
            try:
                readers = [open_dataset(dataset.model_dump(by_alias=True), project=project) for dataset in used]
                features = _trained(config, readers)
            except DataError as error:
                note += f"; its data is not there, the shapes are the config's defaults ({error})"
        if encoder_dim is None and config.image_encoder is not None:
            encoder: Any = find("image_encoder", config.image_encoder.class_, project).load()
            encoder_dim = encoder(**config.image_encoder.args).feature_dim
        return config.policy.args, features, encoder_dim, note
    return {}, features, encoder_dim, ""


def _trained(config: TaskConfig, readers: Sequence[Reader]) -> Features:
    """What the policy of a task is given and answers."""
    from menura.processing.layout import common_features
    from menura.processing.spaces import Spaces, spaces_of_each

    if config.layout is None:
        return Spaces.of(config.processor, readers[0].features).trained
    each = spaces_of_each(config.processor, {reader.name: reader.features for reader in readers})
    return common_features(config.layout, {name: own.trained for name, own in each.items()})


def _trial(
    policy_class: type[PreTrainedModel],
    args: Mapping[str, Any],
    features: Features | None,
    encoder_dim: int | None,
) -> Trial:
    config_class, contract = require_policy_class(policy_class), Contract.of(policy_class)
    if features is None:
        features = default_features(config_class, contract, args)
    if encoder_dim is None:
        encoder_dim = default_encoder_dim(config_class, contract, features, args)
    config = fill_config(config_class, args, features, image_encoder_dim=encoder_dim)
    if "image_size" not in args and math.prod(Needs.of(config).image_size or (0, 0)) > math.prod(CHECKED_IMAGE_SIZE):
        smaller = {**args, "image_size": list(CHECKED_IMAGE_SIZE)}
        config = fill_config(config_class, smaller, features, image_encoder_dim=encoder_dim)
    return Trial.of(policy_class, config, features, encoder_dim)


def _learning(trial: Trial, file: Path | None, shown: str) -> list[CheckResult]:
    """Gradients everywhere, and a loss that falls: one short training tells both."""
    try:
        without, before, after = behaviour.learning(trial)
    except Exception as error:  # noqa: BLE001  whatever the user's code raises is what is reported
        return [CheckResult("the loss falls on one batch", False, describe(error, file, shown))]
    gradients = CheckResult("every parameter gets a gradient", True)
    if without:
        message = (
            f"{trial.name}: expected a gradient in every parameter, got none in {', '.join(without)}. "
            "Use them in the loss, or freeze them with requires_grad_(False)."
        )
        gradients = CheckResult(gradients.name, False, message)
    falls = f"from {before:.4g} to {after:.4g} in {behaviour.STEPS} steps"
    if after < before:
        return [gradients, CheckResult("the loss falls on one batch", True, falls)]
    message = f"{trial.name}: expected the loss to fall on one batch, got {falls}. Look at the sign and the graph."
    return [gradients, CheckResult("the loss falls on one batch", False, message)]
