"""The report: well-formed, complete, and nothing in it comes from a network."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from menura.evaluation.charts import Point, line_chart
from menura.evaluation.protocol import build_protocol
from menura.evaluation.report import Section, write_report
from menura.evaluation.results import EpisodeResult, Results
from menura.evaluation.sequential import until_interval

VOID = {"meta", "link", "br", "img", "input", "hr", "source", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text: list[str] = []
        self.videos = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [str(value) for key, value in attrs if key in ("src", "href", "poster", "srcset", "data")]
        self.videos += tag == "video"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def results(successes: int, n: int = 10, video: bool = False, name: str = "a <b>policy</b>", **changes: Any) -> Results:
    episodes = tuple(
        EpisodeResult(
            i, 100 + i, i < successes, None if i == 3 else 1.25, 40, 2.0, f"videos/{i}.mp4" if video else None
        )
        for i in range(n)
    )
    protocol = build_protocol(
        {"success_rule": "at <most> 5 cm"}, seeds=range(100, 110), stop_at_success=True, execution={}
    )
    values = {"asked": n, "run": {"num_envs": 8}, **changes}
    return Results(episodes, protocol=protocol, policy={"name": name, "hash": "abc"}, **values)


def test_a_page_of_two_tasks(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for i in range(10):
        (tmp_path / "videos" / f"{i}.mp4").write_bytes(b"not really a video")
    log = [{"step": s, "loss": 1 / s} for s in range(1, 101)] + [
        {"step": 100, "rollout_success_rate": 0.5, "rollout_success_low": 0.2, "rollout_success_high": 0.8},
        {"step": 100, "train_runtime": 75.2},
    ]
    run = tmp_path / "run"
    run.mkdir()
    (run / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    first = results(9, video=True, baselines={"random": results(0), "blind": results(7)})
    sections = [
        Section("Press <the> button", first, tmp_path, run, "menura eval -m run --episodes 10"),
        Section("Transfer", results(2, asked=12)),
    ]
    path = write_report(tmp_path / "report.html", sections, "Demo")
    text = path.read_text()
    page = Page(text)

    words = " ".join("".join(page.text).split())
    assert "9 of 10 episodes succeed." in words
    assert "Between 60 % and 98 %" in words
    assert "It is better than the random baseline by 90 points" in words
    assert "It cannot be told from the blind baseline" in words
    assert "Interrupted: 10 of 12 episodes are finished." in words
    assert "Trained in 1 min 15 s." in words
    assert "menura eval -m run --episodes 10" in words
    assert "Press <the> button" in words  # as text, not as a tag
    assert "at <most> 5 cm" in words
    assert first.fingerprint in words
    assert page.videos == 10
    assert text.count("<svg") == 2
    assert all(address.startswith(("data:video/mp4;base64,", "#")) for address in page.loaded)
    assert not re.search(r"https?://|url\(|@import", text)


def test_many_videos_are_linked_by_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("menura.evaluation.page.EMBEDDED_BYTES", 10)
    directory = tmp_path / "eval of #1"
    (directory / "videos").mkdir(parents=True)
    (directory / "videos" / "0.mp4").write_bytes(b"not really a video")
    path = write_report(tmp_path / "pages" / "report.html", [Section("t", results(5, video=True), directory)])
    page = Page(path.read_text())
    assert page.loaded == ["../eval%20of%20%231/videos/0.mp4#t=0.001"]  # the other files are not there


def test_what_is_chosen_from_is_what_was_filmed(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for i in (0, 1, 8):
        (tmp_path / "videos" / f"{i}.mp4").write_bytes(b"not really a video")
    path = write_report(tmp_path / "r.html", [Section("t", results(5, video=True), tmp_path)])
    words = " ".join(" ".join(Page(path.read_text()).text).split())
    assert "Episodes 3 of 10 are filmed All 3 Solved 2 Failed 1" in words


def test_a_page_of_nothing_yet(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path / "r.html", [Section("t", results(0, 0, asked=5))]).read_text())
    assert "0 of 0 episodes" in " ".join("".join(page.text).split())


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [1e-5, 1.0], [-3.0, 5.0], [float("nan"), 2.0]])
def test_charts_draw_any_values(values: list[float]) -> None:
    svg = line_chart([Point(step, value) for step, value in enumerate(values)], "loss <of> steps")
    assert "nan" not in svg
    assert "loss &lt;of&gt; steps" in svg
    Page(svg)


def test_no_points_no_chart() -> None:
    assert line_chart([], "loss") == ""


def test_measures_perturbed_arms_early_stopping_and_time_are_shown(tmp_path: Path) -> None:
    rule = until_interval(0.3)
    plain = results(9, run={"wall_s": 75.2})
    measured = tuple(replace(episode, measures={"coverage": 0.75}) for episode in plain.episodes)
    stopped = replace(
        plain,
        episodes=measured,
        asked=40,
        perturbed={"noise=0.05": results(2)},
        stopping={**rule.record(measured), "stopped": "the interval is narrow"},
    )
    page = Page(write_report(tmp_path / "r.html", [Section("t", stopped)]).read_text())
    words = " ".join("".join(page.text).split())
    assert "Stopped after 10 of 40 episodes: the interval is narrow." in words
    assert "Interrupted" not in words
    assert "noise=0.05" in words
    assert "−70" in words
    assert "coverage 0.75" in " ".join(words.replace("coverage", "coverage ").split())
    assert "evaluation1 min 15 s" in words
