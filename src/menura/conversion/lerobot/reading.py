"""A LeRobot policy directory -> a policy of Menura."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from menura.conversion.foreign import Foreign, accepted, build, configured, policy_class
from menura.conversion.lerobot.converters import converter, processor_steps
from menura.conversion.lerobot.directory import LeRobotDirectory, policy_directory
from menura.conversion.lerobot.processor import Around
from menura.conversion.weights import listed
from menura.errors import CheckpointError
from menura.policies.contract import Contract

ORIGIN = "lerobot"


def recognises(path: Path) -> bool:
    """Whether it is a LeRobot policy, or a LeRobot training that holds one."""
    return path.is_dir() and policy_directory(path) is not None


def read(path: Path, args: Mapping[str, Any]) -> Foreign:
    """The policy in a LeRobot directory.

    Args:
        args: none, but for `{"statistics": False}`: nothing is normalized. A base model has no statistics.

    Raises:
        CheckpointError, StatisticsError: something is missing, left over, or has no place in Menura.
    """
    if set(args) - {"statistics"} or not isinstance(args.get("statistics", True), bool):
        raise CheckpointError(
            f"args: expected none for a LeRobot policy, whose files say all, or {{statistics: false}}, "
            f"got {dict(args)}."
        )
    directory = LeRobotDirectory.read(path)
    theirs = directory.config
    rules = converter(theirs.type, theirs.where)
    class_ = policy_class(rules.POLICY)
    weights = directory.weights()
    around = Around.read(directory, weights, processor_steps(rules), statistics=args.get("statistics", True))
    contract = Contract.of(class_)
    features = around.features(language="task" in contract.keys)
    facts: dict[str, Any] = {
        "state_dim": features.state_dim,
        "action_dim": features.action_dim,
        "camera_names": list(features.cameras),
        "image_normalize": around.image_normalize(),
    }
    own = rules.config_of(theirs)
    if theirs.unread:
        raise CheckpointError(
            f"{theirs.where}: expected options that the converter of {theirs.type} knows, got {listed(theirs.unread)}. "
            "It was saved by a newer LeRobot; what they mean must be looked at first."
        )
    if theirs.image_keys and "image_size" not in own:
        facts["image_size"] = _one_size(theirs.image_sizes, theirs.where)
    config = configured(class_, {**accepted(class_, facts), **own})
    processor = around.processor(config, features, contract.keys)
    policy = build(class_, config, rules.state_dict_of(weights, config), weights)
    notes = (*theirs.notes, *weights.notes)
    files = tuple(sorted(file for file in directory.path.iterdir() if file.is_file()))
    return Foreign(policy, processor, f"{ORIGIN} {theirs.type}", Path(path), files, notes)


def _one_size(sizes: dict[str, tuple[int, int]], where: str) -> list[int]:
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{key} {height} × {width}" for key, (height, width) in sizes.items())
        raise CheckpointError(f"{where}: expected cameras of one size (height × width), got {told}.")
    return list(next(iter(sizes.values())))
