"""The latency sweep that page 13 tells is the one that was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_controllers_is_what_was_measured() -> None:
    page = (ROOT / "docs" / "13_controllers.md").read_text()
    measured = json.loads((ROOT / "bench" / "results" / "latency" / "aloha_transfer.json").read_text())["controllers"]
    delays = re.search(r"^\| controller, delay in ms \|(.*)\|$", page, re.MULTILINE)[1].split("|")  # type: ignore[index]
    for controller, entries in measured.items():
        told = re.search(rf"^\| `{controller}` \|([\d |]+)\|$", page, re.MULTILINE)
        assert told is not None, controller
        assert [int(number) for number in told[1].split("|")] == [entry["successes"] for entry in entries]
        assert [int(number) for number in delays] == [entry["latency_ms"] for entry in entries]
