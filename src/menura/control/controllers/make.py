"""Controllers from `{class, args}`, for a policy. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from menura import components
from menura.control.controllers.base import Controller

_OF_POLICY = "n_action_steps"


def make_controller(
    config: components.Configured | Mapping[str, Any], n_action_steps: int | None, project: Path | None = None
) -> Controller:
    """The controller that `{class: …, args: …}` describes.

    Args:
        config: a ComponentConfig, as `menura.config.load_controller` gives it, or the mapping a YAML holds.
        n_action_steps: how many actions of a chunk the policy is made to have executed. A controller whose constructor
            has an argument of that name, which is not given or null, is told it.
        project: where a user's own classes are looked for; the working directory by default.

    Raises:
        ConfigError, ComponentError: no such class, or wrong arguments.
    """
    project = project or Path.cwd()
    found, args = components.look_up("controller", config, project)
    if _OF_POLICY in found.parameters().names and args.get(_OF_POLICY) is None:
        args = {**args, _OF_POLICY: n_action_steps}
    given = config["class"] if isinstance(config, Mapping) else config.class_
    made: Controller = components.build("controller", {"class": given, "args": args}, project)
    return made
