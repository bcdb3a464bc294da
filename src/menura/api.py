"""The functions behind the commands, by one name each; every one is imported when it is first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from menura.checkpoint import merge_checkpoint
    from menura.conformance import check_run
    from menura.control.run import control
    from menura.conversion import convert
    from menura.evaluation.collect import collect, collect_tasks
    from menura.evaluation.compare import compare
    from menura.evaluation.evaluate import evaluate
    from menura.evaluation.latency_sweep import latency_sweep
    from menura.evaluation.offline import evaluate_offline
    from menura.evaluation.replay import replay
    from menura.evaluation.suite import evaluate_tasks
    from menura.policies.check import check_policy
    from menura.policies.new import new_policy
    from menura.preflight import preflight
    from menura.reproduction.run import reproduce
    from menura.robots.checking import check_robot
    from menura.serving.run import serve
    from menura.training.run import train

__all__ = [
    "check_policy",
    "check_robot",
    "check_run",
    "collect",
    "collect_tasks",
    "compare",
    "control",
    "convert",
    "evaluate",
    "evaluate_offline",
    "evaluate_tasks",
    "latency_sweep",
    "merge_checkpoint",
    "new_policy",
    "preflight",
    "replay",
    "reproduce",
    "serve",
    "train",
]

_HOMES = {
    "check_policy": "menura.policies.check",
    "check_robot": "menura.robots.checking",
    "check_run": "menura.conformance",
    "collect": "menura.evaluation.collect",
    "collect_tasks": "menura.evaluation.collect",
    "compare": "menura.evaluation.compare",
    "control": "menura.control.run",
    "convert": "menura.conversion",
    "evaluate": "menura.evaluation.evaluate",
    "evaluate_offline": "menura.evaluation.offline",
    "evaluate_tasks": "menura.evaluation.suite",
    "latency_sweep": "menura.evaluation.latency_sweep",
    "merge_checkpoint": "menura.checkpoint",
    "new_policy": "menura.policies.new",
    "preflight": "menura.preflight",
    "replay": "menura.evaluation.replay",
    "reproduce": "menura.reproduction.run",
    "serve": "menura.serving.run",
    "train": "menura.training.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'menura.api' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
