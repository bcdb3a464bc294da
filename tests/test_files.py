"""Writing: the old or the new, never a piece."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from menura import files
from menura.errors import CheckpointError


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"é": [1, 2.5, None]})
    files.write_json(path, {"b": 1})
    assert json.loads(path.read_text()) == {"b": 1}
    files.write_text(tmp_path / "b.txt", "ü")
    assert (tmp_path / "b.txt").read_bytes() == "ü".encode()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.json", "b.txt"]


def test_what_is_no_json_is_refused_and_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))
    assert path.read_text() == "1\n"


def test_an_unwritable_place_leaves_no_temporary(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        files.write_text(tmp_path / "taken", "x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_directory_is_as_readable_as_the_umask_allows(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with files.new_directory(tmp_path / "new") as directory:
        for name, mode in (("private", 0o600), ("script", 0o755)):
            (directory / name).write_text("x")
            (directory / name).chmod(mode)
    plain = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "new" / "private").stat().st_mode == plain
    assert (tmp_path / "new" / "script").stat().st_mode == plain | 0o755


def test_what_a_library_writes_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "below" / "a.bin"
    with files.replacing(path) as temporary:
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".bin"
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(TypeError), files.replacing(path) as temporary:
        temporary.write_text(1)
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"menura" * 500_000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"menura" * 500_000).hexdigest()


def test_read_json_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(CheckpointError, match=r"a\.json: expected a JSON file, got nothing"):
        files.read_json(path, CheckpointError)
    path.write_text('{\n"a": }')
    with pytest.raises(CheckpointError, match=r"a\.json:2: expected JSON"):
        files.read_json(path, CheckpointError)
    path.write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="expected UTF-8"):
        files.read_json(path, CheckpointError)


def make(directory: Path, content: str) -> Path:
    (directory / "inner").mkdir(parents=True)
    (directory / "inner" / "file").write_text(content)
    return directory


def content(directory: Path) -> str:
    return (directory / "inner" / "file").read_text()


def test_directories_are_replaced_whole(tmp_path: Path) -> None:
    final = tmp_path / "final"
    files.replace_directory(make(tmp_path / "one", "1"), final)
    files.replace_directory(make(tmp_path / "two", "2"), final)
    assert content(final) == "2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]


def test_killed_between_the_renames_the_old_one_comes_back(tmp_path: Path) -> None:
    final = make(tmp_path / "final", "old")
    final.rename(tmp_path / ".old-final")
    files.recover_directory(final)
    assert content(final) == "old"


def test_killed_after_the_renames_the_old_one_goes(tmp_path: Path) -> None:
    final = make(tmp_path / "final", "new")
    make(tmp_path / ".old-final", "old")
    files.recover_directory(final)
    assert content(final) == "new"
    assert not (tmp_path / ".old-final").exists()


def test_a_failing_block_leaves_nothing(tmp_path: Path) -> None:
    make(tmp_path / "final", "old")

    def fail(directory: Path) -> None:
        (directory / "piece").write_text("x")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), files.new_directory(tmp_path / "final") as directory:
        fail(directory)
    assert content(tmp_path / "final") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]


def test_a_disk_that_is_full_for_safetensors_is_an_error_of_the_system(tmp_path: Path) -> None:
    nowhere = tmp_path / "nothing" / "weights.safetensors"
    with pytest.raises(OSError, match="os error 2"), files.new_directory(tmp_path / "final"):
        save_file({"a": np.zeros(3)}, nowhere)
    assert list(tmp_path.iterdir()) == []


def test_sigkill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from menura.files import new_directory
final, count = Path({str(tmp_path / "final")!r}), 0
while True:
    count += 1
    with new_directory(final) as directory:
        for name in "abcd":
            (directory / name).write_text(str(count))
    print(flush=True)
"""
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        files.recover_directory(tmp_path / "final")
        entries = sorted(entry.name for entry in (tmp_path / "final").iterdir())
        assert entries == ["a", "b", "c", "d"]
        assert len({(tmp_path / "final" / name).read_text() for name in entries}) == 1
