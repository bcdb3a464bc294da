"""Teleoperators: who takes over from the policy. Imports no torch, and no device before it is needed."""

from menura.teleop.base import Teleoperator, make_teleop

__all__ = ["Teleoperator", "make_teleop"]
