"""Configuration: YAML files, overrides and defaults become one validated `TaskConfig`. Imports no torch."""

from menura.config.devices import load_controller, load_robot, load_teleop
from menura.config.load import load_env, load_task
from menura.config.origins import Origin
from menura.config.overrides import split_section
from menura.config.resolved import ResolvedTask
from menura.config.schema import (
    CollectConfig,
    ComponentConfig,
    DataConfig,
    DatasetConfig,
    EnvConfig,
    EvaluationConfig,
    ProcessorConfig,
    TaskConfig,
)

__all__ = [
    "CollectConfig",
    "ComponentConfig",
    "DataConfig",
    "DatasetConfig",
    "EnvConfig",
    "EvaluationConfig",
    "Origin",
    "ProcessorConfig",
    "ResolvedTask",
    "TaskConfig",
    "load_controller",
    "load_env",
    "load_robot",
    "load_task",
    "load_teleop",
    "split_section",
]
