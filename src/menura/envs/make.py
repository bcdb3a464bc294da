"""Environments and experts from `{class, args}`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from menura import components
from menura.envs.base import SimEnv
from menura.envs.gym import GymEnv
from menura.errors import ContractError

if TYPE_CHECKING:  # another Python that makes environments need not have pydantic
    from menura.config.schema import ComponentConfig


def make_env(config: ComponentConfig | Mapping[str, Any], project: Path | None = None) -> SimEnv:
    """The environment that `{class: …, args: …}` names; any `gymnasium.Env` that is no SimEnv is wrapped in a GymEnv.

    Args:
        config: an EnvConfig, or the mapping a YAML holds. With `python`, that interpreter makes and steps it.
        project: where a user's own classes are looked for; the working directory by default.

    Raises:
        ComponentError: no such class. EnvironmentFailure: it cannot be built. ContractError: it is no environment.
    """
    found, args = components.look_up("env", config, project or Path.cwd(), keys=("python",))
    python = interpreter_of(config, project)
    if python is not None:
        from menura.envs.elsewhere import RemoteEnv

        return RemoteEnv(python, found, args)
    return as_sim_env(found.load()(**args))


def interpreter_of(config: ComponentConfig | Mapping[str, Any], project: Path | None = None) -> Path | None:
    """The other Python that makes and steps an environment; None where this one does."""
    python = config.get("python") if isinstance(config, Mapping) else getattr(config, "python", None)
    return None if python is None else Path(project or Path.cwd(), Path(python).expanduser())


def as_sim_env(env: object) -> SimEnv:
    """`env` itself, or any other `gymnasium.Env` in a GymEnv."""
    if isinstance(env, SimEnv):
        return env
    if isinstance(env, gymnasium.Env):
        return GymEnv(env, success_key="success")
    raise ContractError(f"{type(env).__name__}: expected a gymnasium.Env, got a class that derives from none.")


def make_expert(
    config: ComponentConfig | Mapping[str, Any], project: Path | None = None, env: SimEnv | None = None
) -> Any:
    """The expert that `{class: …, args: …}` names: an object with `reset(env)` and `act(observation)`.

    Of an environment that another Python steps, `env`, the expert runs there too.
    """
    from menura.envs.elsewhere import RemoteEnv

    found, args = components.look_up("expert", config, project or Path.cwd())
    if isinstance(env, RemoteEnv):
        return env.make_expert(found, args)
    expert = found.load()(**args)
    missing = [method for method in ("reset", "act") if not callable(getattr(expert, method, None))]
    if missing:
        raise ContractError(
            f"{type(expert).__name__}: expected the methods reset(env) and act(observation), got no {missing[0]}."
        )
    return expert
