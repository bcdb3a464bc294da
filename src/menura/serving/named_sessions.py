"""Sessions of protocols without connections: a client names its own, and one that nobody asks for is forgotten."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from menura.serving.errors import Busy

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
        limit: how many there may be.
        idle_s: after so long without a request a session is forgotten.
        now: the time, in seconds.
    """

    def __init__(self, engine: Engine, *, limit: int, idle_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._limit = limit
        self._idle_s = idle_s
        self._now = now
        self._named: OrderedDict[Hashable, _Named] = OrderedDict()  # the one asked for longest ago first

    def __len__(self) -> int:
        return len(self._named)

    @asynccontextmanager
    async def using(self, name: Hashable) -> AsyncIterator[ServingSession]:
        """The session of this name, opened where there is none; its requests take turns.

        Raises:
            Busy: there are as many sessions as there may be.
        """
        self.forget_idle()
        if name not in self._named:
            if len(self._named) >= self._limit:
                raise Busy(f"session {name!r}: expected at most {self._limit} sessions, got another. Ask again later.")
            self._named[name] = _Named(self._engine.open_session())
        named = self._named[name]
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
        latest = self._now() - self._idle_s
        idle = [name for name, named in self._named.items() if not named.users and named.used_s < latest]
        for name in idle:
            self._engine.close_session(self._named.pop(name).session)

    def close(self) -> None:
        """Closes all."""
        while self._named:
            self._engine.close_session(self._named.popitem()[1].session)
