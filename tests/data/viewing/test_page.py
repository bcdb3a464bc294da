"""The page, as someone uses it in a browser: headless Chromium, on this machine alone."""

from __future__ import annotations

import base64
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data import LeRobotWriter
from menura.data.pictures import encode_png
from menura.data.viewing import Viewer, ViewServer
from menura.data.wrappers.select import Select

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: sh tools/chromium.sh")
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
# What both cameras show: [[episode, frame, [red, green, blue] in the middle], …].
SHOWN = """() => [...document.querySelectorAll("#cameras canvas")].map(canvas => [
  Number(canvas.dataset.episode), Number(canvas.dataset.frame),
  [...canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].slice(0, 3)])"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any, server: ViewServer) -> Iterator[Callable[..., Any]]:
    """Opens the page at a hash; at the end nothing was complained of, and nothing asked of another machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    asked: list[str] = []

    def open(hash: str = "", *, at: ViewServer = server, expected: str = "no error is") -> Any:
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(at.url + hash)
        open.expected = expected  # type: ignore[attr-defined]
        return page

    open.expected = ""  # type: ignore[attr-defined]
    yield open
    context.close()
    assert [each for each in complaints if not re.search(open.expected, each)] == []  # type: ignore[attr-defined]
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []


def shows(page: Any, painted: Any, episode: int, frame: int) -> None:
    """Both cameras come to show this frame, pixel by pixel, and plots and numbers stand at it."""
    selector = f"canvas[data-episode='{episode}'][data-frame='{frame}']"
    page.wait_for_selector(f"figure:nth-child(1) {selector}")
    page.wait_for_selector(f"figure:nth-child(2) {selector}")
    for camera, (_, _, pixel) in zip(painted.cameras, page.evaluate(SHOWN), strict=True):
        assert max(abs(a - b) for a, b in zip(pixel, painted.colour(episode, frame, camera), strict=True)) <= 4
    assert page.text_content("#position b") == str(frame)
    assert page.text_content(".plot .value.state") == str(frame)  # the first dimension counts the frames
    share = float(page.evaluate("() => document.getElementById('plots').style.getPropertyValue('--at')").rstrip("%"))
    assert share == pytest.approx(100 * frame / (painted.lengths[episode] - 1), abs=0.01)


def test_the_list_and_choosing_from_it(open_page: Callable[..., Any], painted: Any) -> None:
    page = open_page()
    shows(page, painted, 0, 0)
    page.wait_for_selector(".row .task:not(:empty)")
    assert page.text_content("#count") == "30 episodes"
    assert page.locator(".row").count() >= 15  # those in sight
    page.click(".row[data-episode='3']")
    shows(page, painted, 3, 0)
    assert page.text_content("#task") == "put block 0 away"
    facts = page.locator("#facts span").all_text_contents()
    assert facts == ["episode 3", "20 frames", "0.7 s", "not solved", "seed 7", "operator: Ada"]
    page.click(".row[data-episode='1']")
    page.wait_for_function("task => document.getElementById('task').textContent === task", arg=painted.hostile)
    assert page.locator("main img, aside img").count() == 0  # a dataset's words are never markup


def test_search_and_filter(open_page: Callable[..., Any], painted: Any) -> None:
    page = open_page()
    page.wait_for_selector(".row .task:not(:empty)")
    page.fill("#search", "BLOCK 2")
    assert page.text_content("#count") == "10 of 30 episodes"
    page.select_option("#which", "unsolved")
    rows = page.locator(".row").evaluate_all("rows => rows.map(row => Number(row.dataset.episode))")
    assert rows == [episode for episode in range(30) if episode % 3 == 2 and episode % 4 == 3]
    page.keyboard.press("ArrowDown")  # also from the search field
    shows(page, painted, 11, 0)
    page.fill("#search", "7")
    assert page.text_content("#count") == "1 of 30 episodes"


def test_keys(open_page: Callable[..., Any], painted: Any) -> None:
    page = open_page("#episode=2&frame=3")
    shows(page, painted, 2, 3)
    for key, frame in (("ArrowRight", 4), ("Shift+ArrowRight", 14), ("ArrowLeft", 13), ("End", 59), ("Home", 0)):
        page.keyboard.press(key)
        shows(page, painted, 2, frame)
    page.keyboard.press("ArrowUp")
    page.wait_for_selector("canvas[data-episode='1']")
    page.keyboard.press("ArrowDown")
    shows(page, painted, 2, 0)


def test_playing_keeps_all_in_step(open_page: Callable[..., Any], painted: Any) -> None:
    page = open_page("#episode=2&frame=0")
    shows(page, painted, 2, 0)
    page.select_option("#speed", "2")
    page.keyboard.press(" ")
    seen = set()
    while page.get_attribute("#play", "aria-label") == "Pause":
        (left, right), at = page.evaluate(SHOWN), page.text_content("#position b")
        assert left[:2] == right[:2]
        seen.add((left[1], at))
    assert len(seen) > 2
    shows(page, painted, 2, 59)  # to the end, and no further
    page.click("#play")  # from the start again
    page.wait_for_function("() => Number(document.querySelector('#position b').textContent) < 50")
    page.keyboard.press(" ")  # pauses, though the button was clicked before
    frame = int(page.text_content("#position b"))
    shows(page, painted, 2, frame)


def test_a_drag_in_a_plot_seeks(open_page: Callable[..., Any], painted: Any) -> None:
    page = open_page("#episode=0")
    shows(page, painted, 0, 0)
    box = page.locator(".plot .area").first.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + 25, steps=3)
    shows(page, painted, 0, 13)
    page.mouse.move(box["x"] + box["width"] + 300, box["y"])
    page.mouse.up()
    shows(page, painted, 0, 39)
    assert page.url.endswith("#episode=0&frame=39") or page.wait_for_url("**#episode=0&frame=39") is None
    assert [text.split()[0] for text in page.locator(".plot .name").all_text_contents()] == ["arm", "grip", "cube"]
    assert page.locator(".plot").first.locator("path").count() == 2  # state and action of one name in one plot


def test_a_finding_leads_to_its_frame(open_page: Callable[..., Any], painted: Any) -> None:
    page = open_page("#episode=4")
    shows(page, painted, 4, 0)
    page.click("[role=tab][data-view=findings]")
    page.click(".finding:has-text('nan')")
    episode, frame = painted.nan_at
    shows(page, painted, episode, frame)
    page.wait_for_url(f"**#episode={episode}&frame={frame}")
    assert page.locator("#here .finding").first.text_content().startswith("error")
    assert page.locator(".plot .mark.error").count() == 1
    assert page.locator(f".row[data-episode='{episode}'] .dot.error").count() == 1
    page.select_option("#which", "found")
    assert page.locator(f".row[data-episode='{episode}']").count() == 1
    page.click("[role=tab][data-view=statistics]")
    page.wait_for_selector("section[data-view=statistics] .bad:has-text('finite')")
    page.click("[role=tab][data-view=features]")
    text = page.text_content("section[data-view=features]")
    assert "gripper, closed 0, open 1" in text
    assert "30 Hz" in text


def test_statistics_of_sound_data(
    open_page: Callable[..., Any], painted: Any, show: Callable[[Viewer], Any], tmp_path: Path
) -> None:
    with show(Viewer(lambda: Select(painted.reader(), [0, 1]), cache_dir=str(tmp_path))) as server:
        page = open_page(at=server)
        page.click("[role=tab][data-view=statistics]")
        row = page.locator("section[data-view=statistics] tr:has-text('arm')").first
        row.wait_for()
        assert row.locator("td").all_text_contents()[:2] == ["arm", "rad"]
        assert row.locator("td").all_text_contents()[-1] == "39"


def test_a_damaged_camera_is_told(open_page: Callable[..., Any]) -> None:
    page = open_page("#episode=5")
    page.wait_for_selector("#trouble:has-text('right.mp4: damaged.')")
    assert page.evaluate(SHOWN)[0][:2] == [5, 0]


def test_a_damaged_episode_is_told_and_others_are_shown(
    open_page: Callable[..., Any], painted: Any, show: Callable[[Viewer], Any]
) -> None:
    reader = painted.reader()
    read = reader.episode
    reader.episode = lambda index: read(99) if index == 0 else read(index)
    with show(Viewer(lambda: reader)) as server:
        page = open_page(at=server, expected="500")
        page.wait_for_selector("#trouble:has-text('IndexError')")
        assert page.is_hidden("#cameras")
        page.keyboard.press("ArrowDown")
        page.wait_for_selector("canvas[data-episode='1']")
        assert page.is_hidden("#trouble")
        assert page.is_visible("#plots")


def test_the_command(painted: Any, tmp_path: Path, browser: Any) -> None:
    source = painted.reader()
    with LeRobotWriter(tmp_path / "made", source.features) as writer:
        for index in (0, 1):
            writer.add_episode(source.episode(index))
    command = [sys.executable, "-m", "menura", "data", "view", str(tmp_path / "made"), "--no_browser"]
    heard: Any = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # not so in a shell's background
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **heard) as process:
        try:
            assert process.stdout is not None
            page = browser.new_page()
            page.goto(process.stdout.readline().split()[0])
            page.wait_for_selector("canvas[data-frame='0']")
            assert page.text_content("#name") == "made"
            assert page.text_content("#count") == "2 episodes"
            page.close()
            process.send_signal(signal.SIGINT)  # Ctrl-C
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


class Reds:
    """Stands for a task's augmentations: red pictures, another red a seed."""

    def show(self, episode: int, frame: int, seeds: Sequence[int]) -> dict[str, Any]:
        def picture(red: int) -> str:
            png = encode_png(np.full((4, 4, 3), (red, 0, 0), np.uint8))
            return f"data:image/png;base64,{base64.b64encode(png).decode()}"

        cameras = [
            {"name": name, "original": picture(frame), "augmented": [picture(100 + seed) for seed in seeds]}
            for name in ("left", "right")
        ]
        state = {"names": ["arm"], "original": [1.0], "augmented": [[1.5] for _ in seeds]}
        actions = {"names": ["arm"], "original": [[0.0], [1.0]], "augmented": [[[0.1], [0.9]] for _ in seeds]}
        return {"task": "reds", "augmentations": ["Red()"], "cameras": cameras, "state": state, "actions": actions}


def test_augmentations_are_shown_of_the_frame(
    open_page: Callable[..., Any], painted: Any, show: Callable[[Viewer], Any]
) -> None:
    reds = """() => [...document.querySelectorAll(".tiles")].map(tiles => [...tiles.querySelectorAll("img")].map(
      picture => {
        const pen = document.createElement("canvas").getContext("2d");
        pen.drawImage(picture, 0, 0);
        return pen.getImageData(1, 1, 1, 1).data[0];
      }))"""
    with show(Viewer(painted.reader, augmented=Reds())) as server:
        page = open_page("#episode=2&frame=9", at=server)
        shows(page, painted, 2, 9)
        page.click("[role=tab][data-view=augmentation]")
        page.wait_for_selector(".tiles img")
        assert page.evaluate(reds) == [[9, *range(100, 107)]] * 2
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(".tools:has-text('frame 10')")
        page.click(".tools button")
        page.wait_for_selector(".tools:has-text('seeds 7–13')")
        assert page.evaluate(reds) == [[10, *range(107, 114)]] * 2
        assert page.locator("section[data-view=augmentation] path").count() == 8  # of actions: each seed, the original
