"""Does LeRobot read what Menura writes, and do the two agree on the statistics?

Run by hand, in an environment of its own (Python 3.12), whenever the writer or the supported LeRobot changes:

    python3.12 -m venv /tmp/lerobot && /tmp/lerobot/bin/pip install 'lerobot[dataset]==0.6.1' rich h5py
    HF_HUB_OFFLINE=1 PYTHONPATH=src /tmp/lerobot/bin/python tools/check_with_lerobot.py

It writes small datasets of every kind into a temporary directory, loads them with LeRobot, compares every item with
what Menura reads, recomputes the statistics with LeRobot's functions, lets LeRobot add an episode and reads that with
Menura. It prints one line a check; the first that fails ends it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lerobot
import numpy as np
from lerobot.datasets.compute_stats import aggregate_stats, get_feature_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from menura.data import Episode, LeRobotWriter, compact, convert, open_dataset
from menura.features import CameraFeature, Features, VectorFeature

LENGTHS = (40, 25, 31)
TASKS = ("push the cube", "lift the cube")
KEYS = {"state": "observation.state", "action": "action"}
QUANTILES = ("q01", "q10", "q50", "q90", "q99")


@dataclass(frozen=True)
class Case:
    """A kind of dataset."""

    name: str
    arguments: dict[str, Any]
    fps: float = 20.0
    cameras: tuple[str, ...] = ("top", "wrist.left")
    worst_pixel: float = 12 / 255  # two decoders' chroma; the mean is held to a tenth of it
    resumed: bool = True


CASES = (
    Case("libx264", {}),
    Case("libx264-ultrafast", {"codec": "libx264-ultrafast"}),
    Case("libx264-420", {"codec": "libx264-420"}),
    Case("libsvtav1", {"codec": "libsvtav1"}),
    Case("images", {"video": False}, worst_pixel=1e-6),
    Case("without cameras", {}, cameras=()),
    Case("fractional fps", {}, fps=12.5, resumed=False),  # which LeRobot reads, but does not write,
)


def features(case: Case) -> Features:
    """Two cameras of different sizes, a vector of one number among the two."""
    sizes = {"top": CameraFeature(96, 128), "wrist.left": CameraFeature(64, 64)}
    return Features(
        state=VectorFeature(("x", "y", "angle"), units=("m", "m", "rad")),
        action=VectorFeature(("grip",)),
        cameras={name: sizes[name] for name in case.cameras},
        fps=case.fps,
        language=True,
        robot="sim",
    )


def episode(case: Case, number: int) -> Episode:
    """Smooth moving pictures and random numbers, a function of the number alone."""
    rng, length = np.random.default_rng(number), LENGTHS[number]
    images = {}
    for name, camera in features(case).cameras.items():
        y, x = np.mgrid[: camera.height, : camera.width]
        shade = (x + y)[None] + 3 * np.arange(length)[:, None, None] + 20 * number
        images[name] = np.stack([shade % 256, 128 + 100 * np.sin(shade / 40), 255 - shade % 200], -1).astype(np.uint8)
        images[name] = np.clip(images[name], 0, 255)
    return Episode(
        state=rng.normal(size=(length, 3)),
        action=rng.normal(size=(length, 1)),
        images=images,
        task=TASKS[number % 2],
        fps=case.fps,
        success=True,
        seed=number,
    )


def write(case: Case, root: Path) -> None:
    with LeRobotWriter(root, features(case), **case.arguments) as writer:
        for number in range(len(LENGTHS)):
            writer.add_episode(episode(case, number))


def require_equal_items(case: Case, root: Path) -> str:
    """LeRobot's items against Menura's episodes."""
    theirs = LeRobotDataset("local/check", root=root)
    ours = open_dataset(root)
    assert (theirs.num_episodes, theirs.num_frames) == (len(ours), int(ours.lengths().sum()))
    row, worst = 0, 0.0
    for number in range(len(ours)):
        mine = ours.episode(number)
        for frame in range(len(mine)):
            item = theirs[row]
            facts = {key: int(item[key]) for key in ("index", "episode_index", "frame_index")}
            assert facts == {"index": row, "episode_index": number, "frame_index": frame}, facts
            assert item["task"] == mine.task
            assert np.array_equal(np.atleast_1d(item["observation.state"].numpy()), mine.state[frame])
            assert np.array_equal(np.atleast_1d(item["action"].numpy()), mine.action[frame])
            for name, frames in mine.images.items():
                pixels = item[f"observation.images.{name}"].numpy().transpose(1, 2, 0)
                difference = np.abs(pixels - frames[frame].astype(np.float32) / 255)
                worst = max(worst, float(difference.max()))
                assert difference.mean() <= case.worst_pixel / 10, (number, frame, name, difference.mean())
            row += 1
    assert worst <= case.worst_pixel, worst
    return f"{row} items, worst pixel {255 * worst:.1f} of 255"


def require_equal_statistics(case: Case, root: Path) -> str:
    """LeRobot's functions on what was written, against `meta/stats.json` and the table of episodes."""
    episodes = [episode(case, number) for number in range(len(LENGTHS))]

    def statistics(one: Episode) -> dict[str, dict[str, Any]]:
        found = {}
        for name, key in KEYS.items():
            found[key] = get_feature_stats(getattr(one, name), axis=0, keepdims=False)
        for name, frames in one.images.items():
            channels_first = np.asarray(frames).transpose(0, 3, 1, 2)
            entry = get_feature_stats(channels_first, axis=(0, 2, 3), keepdims=True)
            found[f"observation.images.{name}"] = {
                key: value if key == "count" else np.squeeze(value / 255.0, axis=0) for key, value in entry.items()
            }
        return found

    theirs = aggregate_stats([statistics(one) for one in episodes])
    ours = json.loads((root / "meta/stats.json").read_text())
    pictures, quantiles = 0.0, 0.0
    for key, entry in theirs.items():
        spread = np.asarray(entry["max"]) - np.asarray(entry["min"])
        for name in ("min", "max", "mean", "std"):
            # LeRobot sums the pixels of an episode as float32, so that its mean is off in the third digit.
            picture = key not in KEYS.values() and name in ("mean", "std")
            off = np.abs(np.asarray(ours[key][name]) - entry[name]) / spread
            assert off.max() <= (0.01 if picture else 1e-6), (key, name, ours[key][name], entry[name])
            pictures = max(pictures, float(off.max()))
        for name in QUANTILES:
            quantiles = max(quantiles, float((np.abs(np.asarray(ours[key][name]) - entry[name]) / spread).max()))
        assert ours[key]["count"] == [sum(LENGTHS)], (key, ours[key]["count"])
    for name, frames in ((name, [one.images[name] for one in episodes]) for name in case.cameras):
        pixels = np.concatenate([np.asarray(each) for each in frames]) / 255
        for field, exact in (("mean", pixels.mean((0, 1, 2))), ("std", pixels.std((0, 1, 2)))):
            np.testing.assert_allclose(np.ravel(ours[f"observation.images.{name}"][field]), exact, rtol=1e-9)
    return (
        f"equal (mean and std of pixels within {100 * pictures:.2f} % of the range, ours exact); "
        f"quantiles differ by up to {100 * quantiles:.1f} % of the range"
    )


def require_readable_after_resume(case: Case, root: Path) -> str:
    """LeRobot adds an episode to a dataset of ours."""
    theirs = LeRobotDataset.resume("local/check", root=root)
    added = episode(case, 1)
    for frame in range(len(added)):
        theirs.add_frame(
            {
                "observation.state": added.state[frame],
                "action": added.action[frame],
                "task": "a third task",
                **{f"observation.images.{name}": frames[frame] for name, frames in added.images.items()},
            }
        )
    theirs.save_episode()
    theirs.finalize()
    ours = open_dataset(root)
    assert ours.lengths().tolist() == [*LENGTHS, len(added)]
    for place, wrote in enumerate([*(episode(case, number) for number in range(len(LENGTHS))), added]):
        got = ours.episode(place)
        np.testing.assert_array_equal(got.state, wrote.state)
        for name, frames in wrote.images.items():
            error = np.abs(np.asarray(got.images[name]).astype(int) - np.asarray(frames)).mean()
            assert error < 6, (place, name, error)
    assert ours.episode(len(LENGTHS)).task == "a third task"
    return f"{len(ours)} episodes"


def main() -> None:
    print(f"LeRobot {lerobot.__version__}")
    checks = [require_equal_items, require_equal_statistics, require_readable_after_resume]
    with tempfile.TemporaryDirectory() as directory:
        for case in CASES:
            root, compacted, copied = (
                Path(directory) / f"{case.name}{kind}" for kind in ("", ", compacted", ", copied from compacted")
            )
            write(case, root)
            compact(root, compacted, progress=False)
            convert(compacted, copied, progress=False)  # statistics of its pictures are of sampled frames
            for place in (root, compacted):
                for check in checks[: 3 if case.resumed else 2]:
                    print(f"{place.name}: {check.__name__}: {check(case, place)}", flush=True)
            print(f"{copied.name}: {require_equal_items.__name__}: {require_equal_items(case, copied)}", flush=True)


if __name__ == "__main__":
    main()
