"""How a policy's states and actions are normalized when the task does not say.

A config class may know what its method was made for: `action_normalize = "minmax"` as a plain attribute of the class,
and `state_normalize` likewise. The attribute is read from source, so that `menura config` can show it.
"""

from __future__ import annotations

from menura.components import find
from menura.config.origins import Origin, Problems, Tree
from menura.errors import ComponentError


def choose_normalization(tree: Tree, problems: Problems) -> None:
    """Fill in `processor.state` and `processor.action` where they are not said and the policy's config class does."""
    policy, processor = tree.value.get("policy"), tree.value.setdefault("processor", {})
    if not isinstance(policy, dict) or not isinstance(processor, dict) or not isinstance(policy.get("class"), str):
        return  # the schema says so
    try:
        config = find("policy", policy["class"], problems.project).config_class()
    except ComponentError:
        return  # which the check of components tells, where the class is needed
    for feature in ("state", "action"):
        constant = config.constant(f"{feature}_normalize") if config is not None else None
        if constant is not None and feature not in processor:
            processor[feature] = constant.value
            tree.origins["processor", feature] = Origin("default", constant.file, constant.line)
