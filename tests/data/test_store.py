"""The store: built once for each content and shape, complete or absent, never in memory as a whole."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import time
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from menura.data import Store, build_store, store_writing
from menura.errors import ContractError, DataError
from menura.files import TEMPORARY
from menura.processing.images import resize_images

FORK = multiprocessing.get_context("fork")
CAMERAS = {"top": (6, 8), "wrist": (4, 4)}


def build(reader, cache, **options) -> Store:
    return build_store(reader, cache_dir=cache, **{"progress": False, "num_workers": 0, **options})


def remains(cache: Path) -> list[str]:
    return [path.name for path in (cache / "store").glob(f"{TEMPORARY}*")]


def assert_complete(store: Store, reader) -> None:
    """Every row and frame of a raw store at the cameras' own size is the reader's."""
    for index in range(len(reader)):
        rows, episode = slice(store.starts[index], store.starts[index + 1]), reader.episode(index)
        np.testing.assert_array_equal(store.state[rows], episode.state)
        np.testing.assert_array_equal(store.action[rows], episode.action)
        assert store.tasks[store.task_index[index]] == episode.task
        for camera in store.features.cameras:
            np.testing.assert_array_equal(store.images[camera][rows], episode.images[camera])


@pytest.mark.parametrize("workers", [0, 2])
def test_holds_what_the_reader_gives(make_reader, tmp_path, workers):
    reader = make_reader([7, 40, 3], cameras=CAMERAS)
    store = build(reader, tmp_path, num_workers=workers)
    assert_complete(store, reader)
    assert len(store) == 50
    assert store.mode == "raw"
    assert store.name == "arrays"
    assert store.fingerprint == reader.fingerprint()
    assert store.features == reader.features
    assert store.tasks == ["task 0", "task 1"]
    assert store.episodes[1] == {"task": "task 1", "success": True, "seed": 1}
    assert not remains(tmp_path)


def test_everything_is_memory_mapped(make_reader, tmp_path):
    store = build(make_reader([5, 5], cameras={"top": (6, 8), "wrist": (6, 8)}), tmp_path)
    for table in (store.state, store.action, store.starts, store.task_index, store.stacked, *store.images.values()):
        assert isinstance(table, np.memmap)
    assert store.stacked.shape == (10, 2, 6, 8, 3)
    np.testing.assert_array_equal(store.images["wrist"], store.stacked[:, 1])


def test_memory_does_not_grow_with_the_dataset(make_reader, tmp_path):
    def private_bytes() -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return 1024 * int(line.split()[1])

    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    reader = make_reader([100] * 20, cameras={"top": (100, 100)})  # 60 MB of frames, 3 MB an episode
    build(reader, tmp_path / "warm up", cameras=())
    before = private_bytes()
    store = build(reader, tmp_path)
    total = sum(int(store.images["top"][row].sum()) for row in range(len(store)))
    assert total > 0
    assert private_bytes() - before < 20e6


@pytest.mark.parametrize("resize", ["stretch", "pad"])
def test_frames_at_another_size_are_those_of_resize_images(make_reader, tmp_path, resize):
    reader = make_reader([3, 40], cameras=CAMERAS)
    torch.ones(512, 512) @ torch.ones(512, 512)  # starts torch's threads, which do not survive a fork
    store = build(reader, tmp_path, image_size=(5, 7), resize=resize, cameras=["wrist", "top"], num_workers=2)
    assert list(store.features.cameras) == ["wrist", "top"]
    assert (store.features.cameras["top"].height, store.features.cameras["top"].width) == (5, 7)
    frames = reader.episode(1).images
    np.testing.assert_array_equal(store.images["top"][3:], resize_images(frames["top"], (5, 7), resize))
    np.testing.assert_array_equal(store.stacked[3:, 0], resize_images(frames["wrist"], (5, 7), resize))


def test_video_mode_reads_the_source_each_time(fixtures, tmp_path):
    from menura.data import windows

    def frames(mode):
        data = windows(
            fixtures / "lerobot_v3_video", (-1, 0), image_size=48, cache_dir=tmp_path, progress=False, store=mode
        )
        return data.store, data.__getitems__([0, 31, 94, 30, 31])["image"]

    raw, expected = frames("raw")
    video, got = frames("video")
    np.testing.assert_array_equal(got, expected)
    assert (raw.mode, video.mode) == ("raw", "video")
    assert not list(video.directory.glob("images*"))


def test_jpeg_mode_is_small_and_close(fixtures, tmp_path):
    from menura.data import open_dataset

    reader = open_dataset(fixtures / "lerobot_v3_video")
    raw, jpeg = build(reader, tmp_path), build(reader, tmp_path, mode="jpeg", num_workers=2)
    for camera, frames in raw.images.items():
        assert jpeg.images[camera].shape == frames.shape
        assert np.abs(jpeg.images[camera][:].astype(int) - frames).mean() < 3
    size = sum(path.stat().st_size for path in jpeg.directory.glob("images*"))
    assert size < sum(path.stat().st_size for path in raw.directory.glob("images*")) / 2


@pytest.mark.parametrize(("budget", "mode"), [(3 * 48 * 20, "raw"), (3 * 48 * 20 - 1, "jpeg"), (400, "video")])
def test_the_budget_chooses_the_mode(make_reader, tmp_path, budget, mode):
    assert build(make_reader([20], cameras={"top": (6, 8)}), tmp_path, budget_bytes=budget).mode == mode


def test_progress_is_shown_on_stderr_only(make_reader, tmp_path, capsys):
    build(make_reader([3] * 5, cameras=CAMERAS), tmp_path, progress=True, num_workers=2)
    assert capsys.readouterr().out == ""


def test_a_store_is_built_once(make_reader, tmp_path):
    read = []
    reader = make_reader([3, 3], hook=read.append)
    first = build(reader, tmp_path)
    assert build(reader, tmp_path).directory == first.directory
    assert read == [0, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 5},
        {"image_size": (5, 6)},
        {"image_size": 5, "resize": "pad"},
        {"cameras": ["top"]},
        {"cameras": ["wrist", "top"]},
        {"mode": "jpeg"},
        {"mode": "video"},
    ],
)
def test_everything_that_shapes_a_store_is_in_its_key(make_reader, tmp_path, options):
    reader = make_reader([3], cameras=CAMERAS)
    assert build(reader, tmp_path, **options).directory != build(reader, tmp_path).directory


def test_a_changed_source_is_another_store(make_reader, tmp_path):
    """The same name, other content: neither tables nor statistics may be the old ones."""
    from menura.data import Windows

    old, new = (build(make_reader([50], name="same", seed=seed), tmp_path) for seed in (0, 1))
    assert old.directory != new.directory
    old_mean, new_mean = (Windows(store).statistics()["action"].mean for store in (old, new))
    np.testing.assert_allclose(new_mean, np.asarray(new.action, np.float64).mean(axis=0))
    assert (old_mean != new_mean).all()


def test_a_source_that_changes_while_it_is_read(make_reader, tmp_path):
    reader = make_reader([3, 3])

    def change(index):
        reader._seed = 7

    reader.hook = change
    with pytest.raises(DataError, match="expected no change while it was read, got one"):
        build(reader, tmp_path)
    assert not remains(tmp_path)


class Encoder(torch.nn.Module):
    feature_dim = 2

    def forward(self, images):
        assert images.dtype == torch.float32
        assert images.shape[1] == 3
        return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3))], dim=1)


def test_features_of_an_image_encoder_replace_frames(make_reader, tmp_path, monkeypatch):
    from menura.data import Windows

    reader = make_reader([3, 40], cameras=CAMERAS)
    store = build(reader, tmp_path, image_encoder=Encoder(), encoder_fingerprint="a")
    top, wrist = (np.concatenate([reader.episode(i).images[camera] for i in (0, 1)]) / 255 for camera in CAMERAS)
    expected = np.stack([top.mean((1, 2, 3)), top.max((1, 2, 3)), wrist.mean((1, 2, 3)), wrist.max((1, 2, 3))], axis=1)
    np.testing.assert_allclose(store.image_features, expected, rtol=1e-5)
    assert store.images == {}
    batch = Windows(store, (-1, 0)).__getitems__([0, 5])
    np.testing.assert_array_equal(batch["image_features"][1], store.image_features[4:6])
    assert "image" not in batch
    other = build(reader, tmp_path, image_encoder=Encoder(), encoder_fingerprint="b")
    assert other.directory != store.directory
    monkeypatch.setattr(Encoder, "feature_dim", 3)
    with pytest.raises(
        ContractError, match=r"Encoder: expected features of shape \(3, 3\) \(feature_dim\), got \(3, 2\)"
    ):
        build(reader, tmp_path, image_encoder=Encoder(), encoder_fingerprint="c")
    with pytest.raises(DataError, match="expected it with its encoder_fingerprint"):
        build(reader, tmp_path, image_encoder=Encoder())


# --- kills and concurrency -------------------------------------------------------------------------------------------


@dataclass
class KillAt:
    """A hook of a reader that kills the process that reads episode `at`."""

    at: int

    def __call__(self, index: int) -> None:
        if index == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class HangAt:
    """A hook that says which process reads episode `at`, and never comes back."""

    at: int
    started: Path

    def __call__(self, index: int) -> None:
        if index == self.at:
            self.started.write_text(str(os.getpid()))
            time.sleep(600)


def in_process(work) -> int:
    """The exit code of a forked process that does `work`."""
    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("episode", [0, 1, 3])
def test_killed_while_reading_an_episode(make_reader, tmp_path, episode):
    def make(hook=None):
        return make_reader([4] * 4, cameras=CAMERAS, hook=hook)

    assert in_process(lambda: build(make(KillAt(episode)), tmp_path)) == -signal.SIGKILL
    assert len(remains(tmp_path)) == 1
    assert_complete(build(make(), tmp_path), make())
    assert not remains(tmp_path)


@pytest.mark.parametrize("function", ["fsync", "rename", "replace", "mkdir"])
@pytest.mark.parametrize("call", [0, 1, 3])
def test_killed_before_and_after_each_step_of_the_disk(make_reader, tmp_path, monkeypatch, function, call):
    def build_and_die():
        plain, calls = getattr(os, function), []

        def dying(*args, **options):
            calls.append(args)
            if len(calls) > call:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **options)

        setattr(os, function, dying)
        build(make_reader([4, 4], cameras=CAMERAS), tmp_path)

    reader = make_reader([4, 4], cameras=CAMERAS)
    assert in_process(build_and_die) in (-signal.SIGKILL, 0)
    build(make_reader([5]), tmp_path)  # another store's build removes what is left of this one
    assert not remains(tmp_path)
    assert_complete(build(reader, tmp_path), reader)


def test_a_killed_builder_takes_its_processes_along(make_reader, tmp_path):
    started = tmp_path / "started"

    def work():
        build(make_reader([4] * 6, cameras=CAMERAS, hook=HangAt(2, started)), tmp_path, num_workers=2)

    builder = FORK.Process(target=work)
    builder.start()
    while not (started.exists() and started.read_text()):
        time.sleep(0.01)
    builder.kill()
    builder.join()
    reader = make_reader([4] * 6, cameras=CAMERAS)
    assert_complete(build(reader, tmp_path), reader)  # does not wait for a lock that an orphan holds
    worker, deadline = int(started.read_text()), time.monotonic() + 20
    while Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_worker_is_an_error(make_reader, tmp_path):
    reader = make_reader([4] * 4, cameras=CAMERAS, hook=KillAt(2))
    with pytest.raises(DataError, match="expected them to finish, got one that was killed"):
        build(reader, tmp_path, num_workers=2)
    assert not remains(tmp_path)


def test_one_builds_and_the_others_wait(make_reader, tmp_path):
    log = tmp_path / "log"

    def hook(index):
        with open(log, "a") as file:
            file.write(f"{index}\n")
        time.sleep(0.05)

    def work():
        reader = make_reader([4] * 4, cameras=CAMERAS, hook=hook)
        assert len(build(reader, tmp_path)) == 16

    builders = [FORK.Process(target=work) for _ in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert [builder.exitcode for builder in builders] == [0] * 4
    assert log.read_text().split() == ["0", "1", "2", "3"]


def test_an_interrupted_build_leaves_nothing(make_reader, tmp_path):
    def interrupt(index):
        if index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(make_reader([4] * 3, hook=interrupt), tmp_path)
    assert not remains(tmp_path)


def test_a_reader_that_cannot_travel_is_read_by_one_process(make_reader, tmp_path, caplog):
    reader = make_reader([4, 4], cameras=CAMERAS, hook=lambda index: None)
    assert_complete(build(reader, tmp_path, num_workers=2), reader)
    assert "Episodes are read by one process" in caplog.text


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_unwritable_cache(make_reader, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError) as caught:
        build(make_reader([3]), blocked)
    assert str(caught.value) == (
        f"Store {blocked / 'store'}: expected a directory that can be written, got Not a directory. "
        "Set MENURA_CACHE or data.cache_dir to another one."
    )


def test_full_disk_is_noticed_before(make_reader, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(10_000_000))
    with pytest.raises(DataError) as caught:
        build(make_reader([1000], cameras={"top": (100, 100)}), tmp_path)
    assert str(caught.value) == (
        f"Store of 'arrays' in {tmp_path / 'store'}: expected 0.03 GB free, got 0.01 GB. Make room, "
        "set MENURA_CACHE or data.cache_dir to another disk, or lower data.store_budget_gb."
    )


def test_full_disk_while_writing(make_reader, tmp_path, monkeypatch):
    def full(self, row, values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_writing.TableFile, "write", full)
    with pytest.raises(DataError, match="got No space left on device"):
        build(make_reader([3]), tmp_path)
    assert not remains(tmp_path)


def test_the_readers_own_trouble_is_not_the_caches(make_reader, tmp_path):
    def unreadable(index):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/episode.mp4")

    with pytest.raises(PermissionError, match=r"episode\.mp4"):
        build(make_reader([3], hook=unreadable), tmp_path)
    assert not remains(tmp_path)


def test_a_cache_that_is_read_only(make_reader, tmp_path, monkeypatch):
    def refuse(path, *args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    kept = build(make_reader([3]), tmp_path)
    monkeypatch.setattr(os, "open", refuse)
    assert build(make_reader([3]), tmp_path).directory == kept.directory
    with pytest.raises(DataError, match="expected a directory that can be written, got Permission denied"):
        build(make_reader([4]), tmp_path)


def test_cache_directory_of_the_environment(make_reader, tmp_path, monkeypatch):
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "here"))
    assert build(make_reader([3]), None).directory.parent == tmp_path / "here" / "store"


def test_a_damaged_store_is_named(make_reader, tmp_path):
    store = build(make_reader([3]), tmp_path)
    (store.directory / "action.npy").write_bytes(b"")
    with pytest.raises(DataError, match=f"Delete {store.directory}"):
        build(make_reader([3]), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": ["wirst"]}, r"expected a camera of \['top', 'wrist'\], got 'wirst'; did you mean wrist\?"),
        ({"mode": "jpg"}, "store: expected one of auto, raw, jpeg, video, stream, got 'jpg'; did you mean jpeg"),
        ({"cameras": ["top", "top"]}, r"expected each camera once, got \['top', 'top'\]"),
        ({"image_size": (0, 5)}, r"image_size: expected \(height, width\) > 0, got \(0, 5\)"),
        ({"resize": "crop"}, "resize: expected stretch or pad, got 'crop'"),
    ],
)
def test_wrong_options(make_reader, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        build(make_reader([3], cameras=CAMERAS), tmp_path, **options)


def test_a_reader_that_contradicts_itself(make_reader, tmp_path):
    reader = make_reader([3, 4])
    reader.lengths = lambda: np.array([3, 5])
    with pytest.raises(DataError, match=r"episode 1: expected \(frames, state, action\) \(5, 3, 2\)"):
        build(reader, tmp_path)


def test_an_empty_dataset(make_reader, tmp_path):
    with pytest.raises(DataError, match="expected episodes, got none"):
        build(make_reader([]), tmp_path)
