"""Robots: real ones, simulated ones, stand-ins. Imports no torch, and no driver or simulator before it is needed."""

from menura.robots.base import Limits, Robot, RobotError, RobotObservation
from menura.robots.make import make_robot

__all__ = ["Limits", "Robot", "RobotError", "RobotObservation", "make_robot"]
