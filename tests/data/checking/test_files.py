"""What lies beside the data and under it: statistics, videos, damage, and reports that are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from menura.data import Episode, LeRobotWriter, open_dataset
from menura.data.checking import Finding, Place, Report, check_dataset
from menura.data.encoding import encode_video
from menura.data.video import iterate_frames
from menura.features import Features

LEROBOT = Path(__file__).parents[2] / "fixtures" / "lerobot"
Clean = Callable[[], list[Any]]
Only = Callable[[Report, str], Finding]


@pytest.fixture
def root(clean: Clean, features: Features, tmp_path: Path) -> Path:
    """Four clean episodes as a LeRobotDataset v3.0 with video."""
    with LeRobotWriter(tmp_path / "data", features) as writer:
        for take in clean()[:4]:
            writer.add_episode(Episode(take.state, take.action, take.images, take.task, features.fps))
    return tmp_path / "data"


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Report]:
    numbers = iter(range(1000))

    def check(dataset: Any, pictures: Any = "all") -> Report:
        return check_dataset(dataset, pictures=pictures, cache_dir=tmp_path / f"cache-{next(numbers)}")

    return check


@pytest.mark.parametrize("pictures", ["none", "sampled", "all"])
def test_clean_files(root: Path, look: Callable[..., Report], pictures: str) -> None:
    assert look(root, pictures).findings == ()


def edit_stats(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    change(stats)
    path.write_text(json.dumps(stats))


def test_statistics_of_other_data(root: Path, look: Callable[..., Report], only: Only) -> None:
    def change(stats: dict[str, Any]) -> None:
        for name in ("mean", "std", "min", "max"):
            stats["action"][name] = [5 * value for value in stats["action"][name]]

    edit_stats(root, change)
    found = only(look(root), "statistics")
    assert (found.severity, found.feature, found.places) == ("error", "action", ())


def test_statistics_that_are_a_little_off(root: Path, look: Callable[..., Report], only: Only) -> None:
    def change(stats: dict[str, Any]) -> None:
        stats["observation.state"]["mean"][0] += 0.1

    edit_stats(root, change)
    found = only(look(root), "statistics")
    assert (found.severity, found.feature) == ("warning", "state")


def test_quantiles_are_not_compared(root: Path, look: Callable[..., Report]) -> None:
    """LeRobot's are averages over the episodes, and no quantiles."""

    def change(stats: dict[str, Any]) -> None:
        stats["action"]["q01"] = [0.0] * 5

    edit_stats(root, change)
    assert look(root).findings == ()


def test_statistics_of_one_episode(root: Path, look: Callable[..., Report], only: Only) -> None:
    (path,) = sorted((root / "meta/episodes").rglob("*.parquet"))
    table = pq.read_table(path)
    column = table.column_names.index("stats/action/max")
    values = table.column(column).to_pylist()
    values[2] = [10.0] * 5
    pq.write_table(table.set_column(column, table.schema.field(column), [values]), path)
    found = only(look(root), "statistics")
    assert (found.severity, found.episodes) == ("error", [2])
    selected = open_dataset(root, episodes=[3, 2])
    assert only(look(selected), "statistics").episodes == [1]


def test_statistics_of_one_episode_in_version_2(tmp_path: Path, look: Callable[..., Report]) -> None:
    root = tmp_path / "data"
    shutil.copytree(LEROBOT / "lerobot_v21", root)
    path = root / "meta/episodes_stats.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["stats"]["action"]["mean"][0] += 50
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = look(root, "none").errors
    assert (found.kind, found.feature, found.episodes) == ("statistics", "action", [1])
    path.write_text("{")
    (unreadable,) = [finding for finding in look(root, "none").findings if finding.kind == "statistics"]
    assert unreadable.severity == "warning"
    assert "cannot be read" in unreadable.message


def videos(root: Path) -> list[Path]:
    return sorted((root / "videos").rglob("*.mp4"))


def test_a_video_with_frames_missing(root: Path, look: Callable[..., Report], only: Only, clean: Clean) -> None:
    """Only those episodes are named whose frames are gone."""
    frames = clean()[2].images["top"]
    write_video(videos(root)[2], frames[:-30])
    found = only(look(root, "none"), "frames_rows")
    assert (found.severity, found.camera) == ("error", "top")
    assert found.places == (Place(2, (len(frames) - 30, len(frames))),)
    assert look(root, "all").kinds == {"frames_rows", "damaged"}


def test_a_video_of_many_episodes_with_frames_missing(tmp_path: Path, look: Callable[..., Report]) -> None:
    """LeRobot's own: 31, 24 and 40 frames in one file."""
    root = tmp_path / "data"
    shutil.copytree(LEROBOT / "lerobot_v3_video", root)
    path = root / "videos/observation.images.top/chunk-000/file-000.mp4"
    write_video(path, np.stack(list(iterate_frames(path)))[:50], fps=10)
    (found,) = look(root, "none").errors
    assert (found.kind, found.camera) == ("frames_rows", "top")
    assert found.places == (Place(1, (19, 24)), Place(2, (0, 40)))


def test_a_video_with_too_many_frames(root: Path, look: Callable[..., Report], only: Only, clean: Clean) -> None:
    frames = clean()[2].images["top"]
    write_video(videos(root)[2], np.concatenate([frames, frames[:4]]))
    found = only(look(root, "all"), "frames_rows")
    assert (found.severity, found.episodes) == ("warning", [2])


def write_video(path: Path, frames: np.ndarray, fps: float = 20) -> None:
    height, width = frames.shape[1:3]
    encode_video(path, frames, fps=fps, height=height, width=width, codec="libx264")


def test_a_damaged_video(root: Path, look: Callable[..., Report]) -> None:
    path = videos(root)[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = look(root, "none")
    assert report.kinds == {"damaged"}
    assert report.errors[0].episodes == [1]


def test_a_damaged_table(root: Path, look: Callable[..., Report]) -> None:
    (path,) = sorted((root / "data").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    report = look(root)
    assert report.kinds == {"damaged"}
    assert report.errors[0].episodes == [0, 1, 2, 3]
    assert "damaged or cut off" in report.errors[0].message


# Reports


def test_a_report_travels_as_json(clean: Clean, check: Callable[..., Report]) -> None:
    takes = clean()
    takes[2].state[4, 1] = np.nan
    takes[4].task = ""
    report = check(takes)
    assert len(report.findings) == 2
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_the_same_data_is_checked_once(clean: Clean, takes_reader: Any, tmp_path: Path) -> None:
    reader = takes_reader(clean())
    first = check_dataset(reader, cache_dir=tmp_path)
    assert len(reader.read) >= 8
    again = takes_reader(clean())
    assert check_dataset(again, cache_dir=tmp_path) == first
    assert again.read == []
    again.takes[0].state[3, 0] += 1e-3
    check_dataset(again, cache_dir=tmp_path)
    assert len(again.read) >= 8


def test_a_damaged_report_is_made_anew(clean: Clean, takes_reader: Any, tmp_path: Path) -> None:
    check_dataset(takes_reader(clean()), cache_dir=tmp_path)
    (kept,) = (tmp_path / "checks").iterdir()
    kept.write_text("{")
    assert check_dataset(takes_reader(clean()), cache_dir=tmp_path).findings == ()


def test_every_table_is_read_once_and_no_frame_is_decoded(clean: Clean, takes_reader: Any, tmp_path: Path) -> None:
    class Unseen:
        """Frames that nobody may look at."""

        dtype = np.dtype(np.uint8)

        def __init__(self, frames: np.ndarray) -> None:
            self.shape = frames.shape

        def __len__(self) -> int:
            return self.shape[0]

        def __getitem__(self, index: Any) -> np.ndarray:
            raise AssertionError("decoded")

    takes = [replace(take, images={"top": Unseen(take.images["top"])}) for take in clean()]
    reader = takes_reader(takes)
    reader.fingerprint = lambda: "unseen"
    assert check_dataset(reader, pictures="none", cache_dir=tmp_path).findings == ()
    assert sorted(reader.read) == list(range(8))


def test_one_finding_for_many_episodes(clean: Clean, check: Callable[..., Report], only: Only) -> None:
    takes = clean() * 1
    for number in (0, 1, 2, 5):
        takes[number].state[10, 3] = np.nan
    found = only(check(takes), "nan")
    assert found.episodes == [0, 1, 2, 5]
    assert found.where == "episodes 0-2, 5"


def test_what_was_left_out_is_said(clean: Clean, takes_reader: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("menura.data.checking.check.PICKED", 40)
    report = check_dataset(takes_reader(clean()), cache_dir=tmp_path)
    assert report.seen == ("one picture in 5 of 2 of 8 episodes (--full looks at all)",)
