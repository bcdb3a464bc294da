"""Environments and experts from `{class, args}`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium

from menura import components
from menura.config.schema import ComponentConfig
from menura.envs.base import SimEnv
from menura.envs.gym import GymEnv
from menura.errors import ConfigError, ContractError, did_you_mean


def make_env(config: ComponentConfig | Mapping[str, Any], project: Path | None = None) -> SimEnv:
    """The environment that `{class: …, args: …}` names; any `gymnasium.Env` that is no SimEnv is wrapped in a GymEnv.

    Args:
        config: an EnvConfig, or the mapping a YAML holds.
        project: where a user's own classes are looked for; the working directory by default.

    Raises:
        ComponentError: no such class. EnvironmentFailure: it cannot be built. ContractError: it is no environment.
    """
    env = _build("env", config, project)
    if isinstance(env, SimEnv):
        return env
    if isinstance(env, gymnasium.Env):
        return GymEnv(env, success_key="success")
    raise ContractError(f"{type(env).__name__}: expected a gymnasium.Env, got a class that derives from none.")


def make_expert(config: ComponentConfig | Mapping[str, Any], project: Path | None = None) -> Any:
    """The expert that `{class: …, args: …}` names: an object with `reset(env)` and `act(observation)`."""
    expert = _build("expert", config, project)
    missing = [method for method in ("reset", "act") if not callable(getattr(expert, method, None))]
    if missing:
        raise ContractError(
            f"{type(expert).__name__}: expected the methods reset(env) and act(observation), got no {missing[0]}."
        )
    return expert


def _build(kind: str, config: ComponentConfig | Mapping[str, Any], project: Path | None) -> Any:
    if isinstance(config, Mapping):
        unknown = [key for key in config if key not in ("class", "args")]
        if unknown or "class" not in config:
            raise ConfigError(f"{kind}: expected class and args, got {', '.join(map(str, config)) or 'nothing'}.")
        name, args = config["class"], config.get("args") or {}
    else:
        name, args = config.class_, config.args
    found = components.find(kind, name, project or Path.cwd())
    parameters = found.parameters()
    for argument in args:
        if argument not in parameters.names and not parameters.var_keyword:
            hint = did_you_mean(argument, parameters.names) or "."
            raise ConfigError(f"{kind}.args.{argument}: no such argument of {found.name}{hint}")
    for argument in parameters.required:
        if argument not in args:
            raise ConfigError(f"{kind}.args.{argument}: expected a value, which {found.name} requires, got none.")
    return found.load()(**args)
