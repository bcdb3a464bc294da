"""The server of `menura serve`, and who asks one for a robot, go before other programs where the system permits it."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from menura.clock import WallClock
from menura.control.planning import Planner, Request
from menura.meta_policy import MetaPolicy
from menura.priority import ANSWERING
from menura.served_policy import ServedPolicy
from menura.serving import background
from menura.serving.client import Client
from menura.serving.server import PolicyServer

pytestmark = pytest.mark.usefixtures("first_permitted")


def priority(thread: int | None) -> int:
    """0 of an ordinary thread."""
    assert thread is not None
    return os.sched_getparam(thread).sched_priority


def named(name: str) -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(name)}


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("goes_first", [True, False])
def test_a_server_goes_first_where_it_is_asked_to(
    meta: MetaPolicy, torch_threads: Callable[[int], None], goes_first: bool
) -> None:
    torch_threads(1)
    of_others = named("inference")
    server = PolicyServer(meta, port=0, goes_first=goes_first)
    with background.serving(server), Client(f"ws://127.0.0.1:{server.port}") as client:
        client.infer({"state": np.zeros(3, np.float32)})
        computing, answering = named("inference") - of_others, named("policy server")
        assert computing
        assert answering
        for thread in computing | answering:
            assert priority(thread.native_id) == (ANSWERING if goes_first else 0)
    assert gc.get_freeze_count() == 0


def test_of_threads_that_compute_together_none_goes_first(
    meta: MetaPolicy, torch_threads: Callable[[int], None]
) -> None:
    """It would spin where the others, which it waits for, could compute."""
    torch_threads(2)
    of_others = named("inference")
    with background.serving(PolicyServer(meta, port=0, goes_first=True)):
        assert {priority(thread.native_id) for thread in named("inference") - of_others} == {0}
        assert {priority(thread.native_id) for thread in named("policy server")} == {ANSWERING}


def test_who_only_asks_for_a_robot_goes_first_and_who_computes_does_not(meta: MetaPolicy) -> None:
    with background.serving(PolicyServer(meta, port=0)) as server:
        served = ServedPolicy(f"ws://127.0.0.1:{server.port}")
        for policy, expected in ((served, ANSWERING), (meta, 0)):
            planner = Planner(policy, 0.02, WallClock())
            planner.ask(Request({"state": np.zeros((1, 3), np.float32), "task": ["go"]}, None, 0.0))
            while (answer := planner.take()) is None:
                time.sleep(0.001)
            assert answer.problem is None
            assert priority(planner._thread.native_id) == expected
            planner.close()
        served.close()
