"""Sessions by name: each its own, in turns, forgotten when idle."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from menura.serving.doors.access import Limits
from menura.serving.doors.named_sessions import NamedSessions
from menura.serving.engine import Engine
from menura.serving.engine.errors import Busy


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def sessions(meta: Any, now: Any = time.monotonic) -> NamedSessions:
    return NamedSessions(Engine(meta), Limits(sessions=2, waiting=2, idle_s=60.0), now)


def test_a_name_is_a_session(meta: Any) -> None:
    async def scenario() -> None:
        named = sessions(meta)
        async with named.using("a") as one, named.using(b"b") as other:
            assert one is not other
            with pytest.raises(Busy, match="expected at most 2 of them"):
                async with named.using("c"):
                    pass
        async with named.using("a") as again:
            assert again is one
        named.close()
        assert len(named) == 0

    asyncio.run(scenario())


def test_requests_of_one_session_take_turns(meta: Any) -> None:
    async def scenario() -> None:
        named, order = sessions(meta), []

        async def ask(number: int) -> None:
            async with named.using("a"):
                order.append(number)
                await asyncio.sleep(0)
                order.append(number)

        await asyncio.gather(*map(ask, range(3)))
        assert order == [0, 0, 1, 1, 2, 2]
        with pytest.raises(Busy, match="expected at most 2 of its requests to wait"):
            await asyncio.gather(*map(ask, range(4)))

    asyncio.run(scenario())


def test_what_is_idle_is_forgotten_and_what_is_used_is_not(meta: Any) -> None:
    async def scenario() -> None:
        clock = Time()
        named = sessions(meta, clock)
        async with named.using("a") as first:
            pass
        clock.now = 50
        async with named.using("b"):
            clock.now = 200
            async with named.using("c"):
                assert len(named) == 2  # without a
            async with named.using("c"):
                pass
        clock.now = 300
        async with named.using("a") as second:
            assert second is not first
            assert len(named) == 1

    asyncio.run(scenario())
