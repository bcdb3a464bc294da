"""Videos: decodable, with the right frames, whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from menura.evaluation.results import Results
from menura.evaluation.runner import open_pool, run_episodes
from menura.evaluation.video import VideoWriter, is_video_step


def decode(path: Path) -> tuple[list[Any], float, str]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, float(stream.average_rate), f"{stream.codec_context.name} {stream.pix_fmt}"


@pytest.mark.parametrize(("height", "width"), [(24, 32), (25, 33)])
def test_frames_come_back(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "videos" / "a.mp4"
    with VideoWriter(path, 10) as video:
        for level in range(0, 200, 20):
            video.add(np.full((height, width, 3), level, np.uint8))
        assert not path.exists()
    frames, fps, codec = decode(path)
    assert codec == "h264 yuv420p"
    assert fps == 10
    assert [frame.shape for frame in frames] == [(24 + height % 2 * 2, 32 + width % 2 * 2, 3)] * 10
    assert [int(frame.mean()) for frame in frames] == pytest.approx(range(0, 200, 20), abs=3)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays while it loads


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    def film() -> None:
        with VideoWriter(tmp_path / "a.mp4", 10) as video:
            video.add(np.zeros((8, 8, 3), np.uint8))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        film()
    assert list(tmp_path.iterdir()) == []


def test_the_chosen_steps_play_in_real_time() -> None:
    assert [step for step in range(11) if is_video_step(step, 50, 10)] == [0, 5, 10]
    assert sum(is_video_step(step, 30, 20) for step in range(31)) == 21
    assert all(is_video_step(step, 10, 30) for step in range(10))


def test_episodes_are_filmed_by_the_processes_that_run_them(toy: Any, toy_env: Any, tmp_path: Path) -> None:
    with open_pool(toy_env(max_episode_steps=15), num_envs=2, num_workers=2) as pool:
        policy = toy.ToyPolicy(gain=0.0)
        settings: dict[str, Any] = {"seeds": range(4), "num_envs": 2, "progress": False}
        results = run_episodes(policy, pool, output_dir=tmp_path, videos=3, video_fps=10, **settings)
        assert [episode.video is not None for episode in results.episodes] == [True, True, True, False]
        for episode in results.episodes[:3]:
            frames, fps, _ = decode(tmp_path / str(episode.video))
            # Steps 0, 2, …, 14 at 20 steps per second, and the last one.
            assert len(frames) == 9
            assert fps == 10
        assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
            f"episode_0000{i}.mp4" for i in range(3)
        ]
        unfilmed = run_episodes(policy, pool, videos="all", **settings)
    assert all(episode.video is None for episode in unfilmed.episodes)
    assert [e.steps for e in unfilmed.episodes] == [e.steps for e in Results.load(tmp_path).episodes]
