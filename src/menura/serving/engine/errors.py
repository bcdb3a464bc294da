"""Why a request was not answered with actions. Torch-free."""

from __future__ import annotations

from typing import ClassVar

from menura.errors import MenuraError


class ServingError(MenuraError):
    """A request got no actions. Its session goes on.

    Attributes:
        code: one word for programs, as it crosses the wire.
    """

    code: ClassVar[str] = "error"


class RequestRefused(ServingError):
    """The message is not what the policy was trained on, or is damaged: the sender must send another."""

    code = "refused"


class Late(ServingError):
    """The request's deadline passed before its answer was there."""

    code = "late"


class Busy(ServingError):
    """Too many requests wait already, or the server is about to end."""

    code = "busy"


class PolicyFailed(ServingError):
    """The policy answered something that is no action, or its code raised an error."""

    code = "failed"
