"""Asks a policy server for a robot's actions."""

from .errors import ContractError, MenuraError
from .serving.client import Client, LateAnswer, Pending, Percentiles, RequestRefused, ServerError, is_address
from .serving.codec import CodecError, pack, unpack

__version__ = "0.1.0"
__all__ = [
    "Client",
    "CodecError",
    "ContractError",
    "LateAnswer",
    "MenuraError",
    "Pending",
    "Percentiles",
    "RequestRefused",
    "ServerError",
    "__version__",
    "is_address",
    "pack",
    "unpack",
]
