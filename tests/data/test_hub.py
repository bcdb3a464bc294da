"""Datasets of the Hub, fetched from a server that answers as the Hub does, and from the cache without one."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from menura.data import open_dataset
from menura.data.hub import HubDataset
from menura.errors import DataError

constants = pytest.importorskip("huggingface_hub.constants")

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lerobot"
COMMIT = "a" * 40
MANY = "lerobot_v3_many_files"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lerobot/pusht", HubDataset("lerobot/pusht")),
        ("lerobot/pusht@v2.0", HubDataset("lerobot/pusht", "v2.0")),
        ("hf://datasets/data/pusht@refs/pr/1", HubDataset("data/pusht", "refs/pr/1")),
        ("data/pusht", None),  # there is a folder data
        ("pusht", None),
        ("/data/pusht", None),
        ("./lerobot/pusht", None),
        ("a/b/c", None),
        ("~/pusht", None),
        ("../pusht", None),
    ],
)
def test_which_paths_are_datasets_of_the_hub(tmp_path: Path, text: str, expected: HubDataset | None) -> None:
    (tmp_path / "data").mkdir()
    assert HubDataset.of(text, tmp_path) == expected


class Hub(http.server.BaseHTTPRequestHandler):
    """What `snapshot_download` asks of the Hub: the commit of a revision, the tree of a commit, files."""

    root: Path
    sent: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        place = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        api, files = "/api/datasets/menura/many", f"/datasets/menura/many/resolve/{COMMIT}/"
        if place in (api, f"{api}/revision/main", f"{api}/revision/tried"):
            self.answer(json.dumps({"id": "menura/many", "sha": COMMIT, "siblings": []}).encode())
        elif place.startswith(f"{api}/revision/"):
            self.answer(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
        elif place == f"{api}/tree/{COMMIT}":
            tree = [
                {
                    "type": "file",
                    "path": file.relative_to(self.root).as_posix(),
                    "size": file.stat().st_size,
                    "oid": oid,
                }
                for file, oid in ((file, digest(file)) for file in sorted(self.root.rglob("*.*")) if file.is_file())
            ]
            self.answer(json.dumps(tree).encode())
        elif place.startswith(files) and (self.root / place.removeprefix(files)).is_file():
            file = self.root / place.removeprefix(files)
            if self.command == "GET":
                self.sent.append(place.removeprefix(files))
            self.answer(file.read_bytes(), headers={"ETag": f'"{digest(file)}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    def answer(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Hub that has the fixture as `menura/many`; the names of the files it has sent."""
    sent: list[str] = []
    handler = type("Handler", (Hub,), {"root": FIXTURES / MANY, "sent": sent})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.chdir(tmp_path)
    yield sent
    server.shutdown()
    server.server_close()


def test_only_what_is_needed_is_fetched(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_dataset("menura/many", episodes=[6], keys={"images": []})
    assert reader.name == "many"
    assert [file for file in sent if not file.startswith("meta/")] == ["data/chunk-003/file-000.parquet"]
    local = open_dataset(FIXTURES / MANY, episodes=[6])
    np.testing.assert_array_equal(reader.episode(0).state, local.episode(0).state)

    sent.clear()
    with_camera = open_dataset({"path": "menura/many@tried", "args": {"episodes": [6]}})
    assert sent == ["videos/observation.images.top/chunk-003/file-000.mp4"]
    np.testing.assert_array_equal(with_camera.episode(0).images["top"][3], local.episode(0).images["top"][3])

    sent.clear()
    whole = open_dataset("menura/many")
    assert len(sent) == 12  # the six other files of data, and of videos
    assert len(whole) == 7

    sent.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_dataset("menura/many").fingerprint() == whole.fingerprint()
    assert sent == []


def test_offline_without_the_files(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    open_dataset("menura/many", episodes=[6])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(open_dataset("menura/many", episodes=[6]).episode(0)) == 20
    for path, episodes in (("menura/many", [0]), ("menura/other", None)):
        with pytest.raises(DataError, match=rf"Dataset {path}: neither a path, nor whole in the Hub's cache, and the"):
            open_dataset(path, episodes=episodes)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "menura/none",
            "Dataset menura/none: expected a path or a dataset of the Hub, found neither. If it is private",
        ),
        ("menura/many@none", "Dataset menura/many: expected a branch, tag or commit, got 'none'."),
    ],
)
def test_what_the_hub_does_not_have(sent: list[str], path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(path)
