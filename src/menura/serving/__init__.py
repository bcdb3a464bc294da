"""Policies over a network, in openpi's websocket protocol."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client, LateAnswer, Pending, Percentiles, RequestRefused, ServerError

__all__ = ["Client", "LateAnswer", "Pending", "Percentiles", "RequestRefused", "ServerError"]


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: an environment in another Python needs the codec and has no websockets.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(".client", __name__), name)
    globals()[name] = value
    return value
