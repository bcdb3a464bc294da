"""Sessions of protocols without connections: a client names its own, and one that nobody asks for is forgotten."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from menura.serving.doors.access import Limits
from menura.serving.engine.errors import Busy

if TYPE_CHECKING:
    from menura.serving.engine import Engine, ServingSession


class _Named:
    def __init__(self, session: ServingSession) -> None:
        self.session = session
        self.turn = asyncio.Lock()
        self.users = 0
        self.used_s = 0.0


class NamedSessions:
    """The sessions of one door, by the names its clients gave.

    Args:
        engine: opens and closes them.
        limits: how many there may be, how many requests of one may wait, and when an idle one is forgotten.
        now: the time, in seconds.
    """

    def __init__(self, engine: Engine, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._limits = limits
        self._now = now
        self._named: OrderedDict[Hashable, _Named] = OrderedDict()  # the one asked for longest ago first

    def __len__(self) -> int:
        return len(self._named)

    @asynccontextmanager
    async def using(self, name: Hashable) -> AsyncIterator[ServingSession]:
        """The session of this name, opened where there is none; its requests take turns.

        Raises:
            Busy: there are as many sessions, or requests of this one, as there may be.
        """
        self.forget_idle()
        if name not in self._named:
            if len(self._named) >= self._limits.sessions:
                raise Busy(f"session: expected at most {self._limits.sessions} of them, got another. Ask again later.")
            self._named[name] = _Named(self._engine.open_session())
        named = self._named[name]
        if named.users > self._limits.waiting:
            raise Busy(f"session: expected at most {self._limits.waiting} of its requests to wait. Ask again later.")
        named.users += 1
        try:
            async with named.turn:
                yield named.session
        finally:
            named.users -= 1
            named.used_s = self._now()
            self._named.move_to_end(name)

    def forget_idle(self) -> None:
        """Closes the sessions that nobody asked for of late."""
        latest = self._now() - self._limits.idle_s
        idle = [name for name, named in self._named.items() if not named.users and named.used_s < latest]
        for name in idle:
            self._engine.close_session(self._named.pop(name).session)

    def close(self) -> None:
        """Closes all."""
        while self._named:
            self._engine.close_session(self._named.popitem()[1].session)
