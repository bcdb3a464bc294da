"""Recording from cameras in real time: does every frame arrive, how long does the loop wait? Prints one JSON line.

Three cameras of 480 x 640 pixels at 30 frames a second for a minute. A loop that keeps the time appends frames of a
moving scene, with the noise of a real camera or without. `dropped` is how many of them the dataset read back lacks.
`append_ms` is what `Recorder.append` takes of the loop, `late` how often it made the loop miss its time. `cpu_share` is
of all cores, the loop's own work included. `ratio` is how often the 2 ms that an append may take hold its 99th
percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from menura.data import LeRobotWriter, open_dataset
from menura.features import CameraFeature, Features, VectorFeature

FPS = 30
HEIGHT, WIDTH = 480, 640
CAMERAS = ("front", "left", "wrist")
SCENE = 37  # different frames a camera, shown again and again
LIMIT_MS = 2.0

UInt8 = NDArray[np.uint8]


def scene(seed: int, noise: float) -> list[UInt8]:
    """A smooth room in which the camera sways and a block goes round; `noise` is the sensor's, in grey levels."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (9, 12, 3))
    y, x = np.linspace(0, 7.99, HEIGHT + 40), np.linspace(0, 10.99, WIDTH + 40)
    j, i = y.astype(int), x.astype(int)
    b, a = (y - j)[:, None, None], (x - i)[None, :, None]
    rows, below = coarse[j], coarse[j + 1]
    room = (1 - b) * ((1 - a) * rows[:, i] + a * rows[:, i + 1]) + b * ((1 - a) * below[:, i] + a * below[:, i + 1])
    frames = []
    for number in range(SCENE):
        angle = 2 * np.pi * number / SCENE
        top, left = int(20 + 19 * np.sin(angle)), int(20 + 19 * np.cos(angle))
        frame = room[top : top + HEIGHT, left : left + WIDTH].copy()
        row, column = int(240 + 150 * np.sin(angle)), int(320 + 220 * np.cos(angle))
        frame[row - 40 : row + 40, column - 30 : column + 30] = (200, 60, 30)
        frame += rng.normal(0, noise, frame.shape) if noise else 0
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return frames


def record(root: Path, seconds: float, noise: float, codec: str) -> dict[str, float]:
    """Records one episode at the pace of the clock, and reads it back."""
    features = Features(
        state=VectorFeature.of_width(14, "joint"),
        action=VectorFeature.of_width(14, "target"),
        cameras={name: CameraFeature(HEIGHT, WIDTH) for name in CAMERAS},
        fps=FPS,
    )
    scenes = {name: scene(number, noise) for number, name in enumerate(CAMERAS)}
    rows = np.random.default_rng(0).normal(size=(2, SCENE, 14)).astype(np.float32)
    frames = max(1, round(seconds * FPS))
    took, late = np.empty(frames), 0
    with LeRobotWriter(root, features, codec=codec) as writer, writer.begin() as recorder:
        begin, worked = time.perf_counter(), time.process_time()
        for number in range(frames):
            due = begin + number / FPS
            time.sleep(max(0.0, due - time.perf_counter()))
            shown = number % SCENE
            start = time.perf_counter()
            images = {name: frames_of[shown] for name, frames_of in scenes.items()}
            recorder.append(state=rows[0, shown], action=rows[1, shown], images=images)
            end = time.perf_counter()
            took[number] = 1e3 * (end - start)
            late += end > due + 1 / FPS
        elapsed = time.perf_counter() - begin
        share = (time.process_time() - worked) / elapsed / len(os.sched_getaffinity(0))
        waited = recorder.waited_s
        recorder.save()
        saved = time.perf_counter() - begin - elapsed
    episode = open_dataset(root).episode(0)
    size = sum(path.stat().st_size for path in root.rglob("*.mp4"))
    return {
        "dropped": frames * len(CAMERAS) - sum(len(seen) for seen in episode.images.values()) + frames - len(episode),
        "late": late,
        "append_p50_ms": round(float(np.percentile(took, 50)), 3),
        "append_p99_ms": round(float(np.percentile(took, 99)), 3),
        "append_max_ms": round(float(took.max()), 3),
        "waited_s": round(waited, 3),
        "save_s": round(saved, 3),
        "cpu_share": round(share, 3),
        "mb_a_minute_and_camera": round(size / 1e6 / len(CAMERAS) / (frames / FPS) * 60, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--codec", default="libx264-ultrafast")
    parser.add_argument("--noise", type=float, default=4.0, help="of the pixels, in grey levels; 4 is a webcam indoors")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = record(Path(directory) / "data", given.seconds, given.noise, given.codec)
    ratio = round(LIMIT_MS / result["append_p99_ms"], 2)
    settings = {"seconds": given.seconds, "codec": given.codec, "noise": given.noise, "cameras": len(CAMERAS)}
    print(json.dumps({"benchmark": "recording", "ratio": ratio, **result, **settings}))
