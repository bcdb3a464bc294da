"""Editing datasets of videos: every picture stays with its row, whatever is cut and joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from menura.data import (
    Episode,
    LeRobotWriter,
    Reader,
    compact,
    convert,
    delete,
    merge,
    open_dataset,
    rename,
    split,
    trim,
)
from menura.features import CameraFeature, Features, VectorFeature

LENGTHS = (7, 12, 5, 20)
FEATURES = Features(
    state=VectorFeature(("number",)),
    action=VectorFeature(("number",)),
    cameras={"top": CameraFeature(32, 48), "wrist": CameraFeature(48, 32)},
    fps=10,
    language=True,
)


def write(root: Path, first: int = 0, codec: str = "libx264") -> Path:
    """The pictures say what the rows do: each has a brightness of its own, wrist's is the reverse of top's."""
    with LeRobotWriter(root, FEATURES, codec=codec) as writer:
        for length in LENGTHS:
            numbers = np.arange(first, first + length, dtype=np.float32)[:, None]
            first += length
            pictures = {
                "top": np.broadcast_to(numbers[..., None, None] * 4 + 20, (length, 32, 48, 3)),
                "wrist": np.broadcast_to(230 - numbers[..., None, None] * 4, (length, 48, 32, 3)),
            }
            images = {name: frames.astype(np.uint8) for name, frames in pictures.items()}
            writer.add_episode(Episode(numbers, numbers, images, task="count", fps=10))
    return root


def require_in_step(reader: Reader, lengths: Sequence[int], cameras: Sequence[str] = ("top", "wrist")) -> None:
    assert reader.lengths().tolist() == list(lengths)
    for index in range(len(reader)):
        episode = reader.episode(index)
        numbers = episode.action[:, 0]
        top, wrist = (np.asarray(episode.images[name][:], np.float32).mean(axis=(1, 2, 3)) for name in cameras)
        np.testing.assert_allclose((top - 20) / 4, numbers, atol=0.7)
        np.testing.assert_allclose((230 - wrist) / 4, numbers, atol=0.7)


def frames_in_files(root: Path) -> int:
    """Of all videos of one camera, as a player counts them."""
    total = 0
    for path in root.glob("videos/observation.images.top/**/*.mp4"):
        with av.open(str(path)) as container:
            total += sum(1 for _ in container.decode(video=0))
    return total


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("videos") / "source")


@pytest.fixture(scope="module")
def joined(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all episodes, as LeRobot has it."""
    return compact(source, tmp_path_factory.mktemp("joined") / "joined", progress=False)


@pytest.mark.parametrize("kind", ["source", "joined"])
def test_every_tool(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    root: Path = request.getfixturevalue(kind)
    require_in_step(open_dataset(root), LENGTHS)

    made = convert(root, tmp_path / "converted", progress=False)
    require_in_step(open_dataset(made), LENGTHS)
    assert frames_in_files(made) == sum(LENGTHS)
    made = trim(root, tmp_path / "trimmed", start=2, stop=1, progress=False)
    require_in_step(open_dataset(made), [length - 3 for length in LENGTHS])
    assert frames_in_files(made) == sum(LENGTHS) - 3 * len(LENGTHS)
    made = delete(root, tmp_path / "fewer", episodes=[1], progress=False)
    require_in_step(open_dataset(made), [7, 5, 20])
    assert frames_in_files(made) == 32
    parts = split(root, tmp_path / "parts", {"a": [3, 1], "b": [0, 2]}, progress=False)
    for part, lengths in zip(parts, ([20, 12], [7, 5]), strict=True):
        require_in_step(open_dataset(part), lengths)
    made = rename(root, tmp_path / "named", cameras={"top": "front"}, progress=False)
    require_in_step(open_dataset(made), LENGTHS, ("front", "wrist"))


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_merge_of_other_codecs_and_layouts(joined: Path, tmp_path: Path, codec: str) -> None:
    other = write(tmp_path / "other", first=3, codec=codec)
    made = merge([joined, other, joined], tmp_path / "made", progress=False)
    require_in_step(open_dataset(made), LENGTHS * 3)
    assert frames_in_files(made) == 3 * sum(LENGTHS)
    require_in_step(open_dataset(compact(made, tmp_path / "compact", progress=False)), LENGTHS * 3)
