"""From a message to an answer, whatever door it came through."""

from menura.serving.engine.engine import Engine, ServingSession

__all__ = ["Engine", "ServingSession"]
