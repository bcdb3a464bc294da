"""How long `menura data view` takes to show a dataset, and how fast it plays. Prints one JSON line.

1,000 episodes of 300 frames, two cameras 240 x 320 at 30 fps, as LeRobot lays them out. `shown_s` is the time from
starting the command to the list of episodes, with tasks, standing in a browser (headless Chromium, already running);
`served_s` to the answers it is made of, without a browser. `played_fps` is how many different frames a second both
cameras showed, in the same step, while the first episode played. Medians of several runs; the latter two of these are
null where there is no Chromium. `ratio` is one second over `shown_s`, or over `served_s`.

    python benchmarks/data_view.py [--episodes 1000] [--frames 300] [--rounds 5] [--play_s 4]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from menura.data import Episode, LeRobotWriter
from menura.features import CameraFeature, Features, VectorFeature

WIDTH = 14
SIZE = (240, 320)
CHROMIUM = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
# Counts the frames that both cameras show, in the same step.
COUNT = """seconds => new Promise(resolve => {
  const cameras = [...document.querySelectorAll("#cameras canvas")], seen = new Set();
  const end = performance.now() + 1000 * seconds;
  let apart = 0;
  document.getElementById("play").click();
  const look = now => {
    const frames = cameras.map(camera => camera.dataset.frame);
    apart += frames.some(frame => frame !== frames[0]);
    seen.add(frames[0]);
    now < end ? requestAnimationFrame(look) : resolve([seen.size, apart]);
  };
  requestAnimationFrame(look);
})"""


def write(root: Path, episodes: int, frames: int) -> Path:
    """One episode, recorded, then listed so many times."""
    names = tuple(f"joint_{number}" for number in range(WIDTH))
    features = Features(
        state=VectorFeature(names),
        action=VectorFeature(names),
        cameras={name: CameraFeature(*SIZE) for name in ("top", "wrist")},
        fps=30,
        language=True,
    )
    rng = np.random.default_rng(0)
    walk = rng.normal(size=(frames, WIDTH)).cumsum(axis=0)
    scene = rng.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    pictures = np.stack([np.roll(scene, 2 * frame, axis=1) for frame in range(frames)])
    with LeRobotWriter(root, features) as writer:
        images = {"top": pictures, "wrist": pictures[:, ::-1]}
        writer.add_episode(Episode(walk, walk, images, task="stack the cubes", fps=30, success=True))

    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "total_episodes": episodes}))
    number = np.arange(episodes)
    (path,) = (root / "meta/episodes").rglob("*.parquet")
    rows = pq.read_table(path).take(pa.array(np.zeros(episodes, np.int64)))
    rows = replaced(rows, {"episode_index": number, "dataset_from_index": number * frames})
    own = {key: json.loads(value) for key, value in rows.schema.metadata.items() if b"menura" in key}
    told = {key: json.dumps({**value, "episodes": value["episodes"] * episodes}) for key, value in own.items()}
    pq.write_table(rows.replace_schema_metadata({**rows.schema.metadata, **told}), path)
    (path,) = (root / "data").rglob("*.parquet")
    row = np.arange(episodes * frames)
    table = pq.read_table(path).take(pa.array(row % frames))
    pq.write_table(replaced(table, {"episode_index": row // frames, "index": row}), path, row_group_size=frames)
    return root


def replaced(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table


@contextmanager
def viewing(root: Path) -> Iterator[str]:
    """The page's address, as the command prints it."""
    command = [sys.executable, "-m", "menura", "data", "view", str(root), "--no_browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
    finally:
        process.kill()
        process.wait()


def served(root: Path) -> float:
    start = time.perf_counter()
    with viewing(root) as url:
        for question in ("", "api/dataset", "api/episodes"):
            with urlopen(url + question) as answer:
                answer.read()
        return time.perf_counter() - start


def shown(root: Path, browser: Any, play_s: float) -> tuple[float, float]:
    """(seconds until the list stands there, frames a second while it plays)."""
    page = browser.new_page()
    start = time.perf_counter()
    with viewing(root) as url:
        page.goto(url, wait_until="commit")
        page.wait_for_selector(".row .task:not(:empty)")
        seconds = time.perf_counter() - start
        page.wait_for_selector("#cameras canvas[data-frame]")
        frames, apart = page.evaluate(COUNT, play_s)
        page.close()
    if apart:
        raise SystemExit(f"the cameras showed different frames {apart} times")
    return seconds, frames / play_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--play_s", type=float, default=4.0)
    given = parser.parse_args()
    found: dict[str, Any] = {"shown_s": None, "played_fps": None}
    with tempfile.TemporaryDirectory() as directory:
        root = write(Path(directory) / "many", given.episodes, given.frames)
        found["served_s"] = round(statistics.median(served(root) for _ in range(given.rounds)), 3)
        if (chromium := shutil.which("chromium")) is not None:
            from playwright.sync_api import sync_playwright

            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM.split())
                runs = [shown(root, browser, given.play_s) for _ in range(given.rounds)]
                browser.close()
            found["shown_s"] = round(statistics.median(seconds for seconds, _ in runs), 3)
            found["played_fps"] = round(statistics.median(fps for _, fps in runs), 1)
    ratio = round(1 / (found["shown_s"] or found["served_s"]), 2)
    targets = {"shown_s_target": 1.0, "played_fps_target": 30}
    print(json.dumps({"benchmark": "data_view", "ratio": ratio, "episodes": given.episodes, **found, **targets}))


if __name__ == "__main__":
    main()
