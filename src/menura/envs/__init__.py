"""Environments, and the experts that solve them."""

from menura.envs.base import Observation, Outcome, SimEnv
from menura.envs.make import make_env, make_expert

__all__ = ["Observation", "Outcome", "SimEnv", "make_env", "make_expert"]
