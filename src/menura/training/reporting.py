"""`training.report_to`: whether what it names is installed, known before anything is opened. Torch-free."""

from __future__ import annotations

import importlib.util

from menura.config import ResolvedTask
from menura.config.origins import PACKAGE
from menura.errors import ConfigError, did_you_mean

# Integration of transformers -> the modules of which one must be there, the one to install first.
_MODULES: dict[str, tuple[str, ...]] = {
    name: (name,)
    for name in ("clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "mlflow", "neptune", "swanlab", "trackio")
} | {
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "kubeflow": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
}
_EXTRAS = ("tensorboard", "wandb")  # of Menura's own package
_INSTALL = {"azure_ml": "azureml-core"}


def require_integrations(task: ResolvedTask) -> None:
    """What a task is to be logged to is there. Menura's own default is nobody's wish, and may be missing.

    Raises:
        ConfigError: an integration that transformers does not know, or whose package is not installed.
    """
    origin = task.origins.get("training.report_to")
    if origin is not None and origin.file is not None and origin.file.is_relative_to(PACKAGE):
        return
    asked = task.config.training.get("report_to")
    problems = [_problem(name) for name in ([asked] if isinstance(asked, str) else asked or []) if not installed(name)]
    if problems:
        raise ConfigError(
            [f"training.report_to: {problem} ({task.locate('training.report_to')})" for problem in problems]
        )


def installed(integration: str) -> bool:
    """Whether the package of an integration of transformers is there; `all` and `none` need none."""
    if integration in ("all", "none"):
        return True
    modules = _MODULES.get(integration)
    return modules is not None and (not modules or any(importlib.util.find_spec(name) is not None for name in modules))


def install_command(integration: str) -> str:
    """What to type for an integration to be there."""
    if integration in _EXTRAS:
        return f"pip install 'menura[{integration}]'"
    return f"pip install {_INSTALL.get(integration, _MODULES[integration][0])}"


def _problem(name: str) -> str:
    if name not in _MODULES:
        known = sorted([*_MODULES, "all", "none"])
        return f"expected some of {', '.join(known)}, got {name!r}{did_you_mean(name, known) or '.'}"
    return f"expected {name} to be installed, got no such package. Run `{install_command(name)}`, or report to none"
