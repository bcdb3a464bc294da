"""Clients' names for the parts of an observation: those of openpi's examples, one's own, and wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from menura.config.origins import PACKAGE
from menura.errors import ConfigError
from menura.features import CameraFeature, Features, VectorFeature
from menura.serving.engine.errors import RequestRefused
from menura.serving.engine.keys import KeyMap

PICTURE = np.zeros((4, 4, 3), np.uint8)


def features(width: int, *cameras: str) -> Features:
    return Features(
        VectorFeature.of_width(width, "s"),
        VectorFeature.of_width(7, "a"),
        cameras={camera: CameraFeature(224, 224) for camera in cameras},
    )


def openpi_message(name: str) -> dict[str, Any]:
    """As openpi's own clients send it."""
    if name == "droid":
        return {
            "observation/exterior_image_1_left": PICTURE,
            "observation/wrist_image_left": PICTURE,
            "observation/joint_position": np.arange(7.0),
            "observation/gripper_position": np.array([9.0]),
            "prompt": "do something",
        }
    if name == "libero":
        return {
            "observation/image": PICTURE,
            "observation/wrist_image": PICTURE,
            "observation/state": np.arange(8.0),
            "prompt": "do something",
        }
    cameras = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
    return {"state": np.arange(14.0), "images": dict.fromkeys(cameras, PICTURE), "prompt": "do something"}


@pytest.mark.parametrize(
    ("name", "width", "cameras"),
    [
        ("droid", 8, ("exterior_image_1_left", "wrist_image_left")),
        ("droid", 8, ("exterior_1_left", "wrist_left")),
        ("libero", 8, ("image", "wrist_image")),
        ("libero", 8, ("agentview", "eye_in_hand")),
        ("libero", 8, ("agentview",)),
        ("aloha", 14, ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")),
        ("aloha", 14, ("top",)),
    ],
)
def test_openpi_s_clients_are_understood(name: str, width: int, cameras: tuple[str, ...]) -> None:
    keys = KeyMap.read(name).fitted(features(width, *cameras), cameras)
    picked = keys.observation(openpi_message(name))
    assert set(picked.images) == set(cameras)
    assert sum(part[1] for part in picked.state) == width
    assert np.concatenate([part[2] for part in picked.state]).shape == (width,)
    assert picked.task == ("prompt", "do something")


@pytest.mark.parametrize("name", [file.stem for file in (PACKAGE / "configs" / "keys").glob("*.yaml")])
def test_a_layout_that_does_not_fit_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KeyMap.read(name).fitted(features(5, "front"), ("front",))
    assert f"{name}: expected a state of 5 numbers, got" in str(caught.value)
    assert f"{name}: expected a key of camera 'front', got those of" in str(caught.value)


def test_a_near_camera_is_suggested() -> None:
    with pytest.raises(ConfigError, match="did you mean wrist_image_left"):
        KeyMap.read("droid").fitted(features(8, "wrist_image_lef"), ("wrist_image_lef",))


def test_wrong_files_say_where(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("state:\n  q: 7\ncamera:\n  a: [b]\n")
    with pytest.raises(ConfigError, match=r"camera: no such key; did you mean cameras\?.*mine\.yaml:3"):
        KeyMap.read(file)
    file.write_text("state:\n  q: none\n")
    with pytest.raises(ConfigError, match=r"state\.q: expected a whole number.*mine\.yaml:2"):
        KeyMap.read(file)
    with pytest.raises(ConfigError, match=r"no keys is named 'droit'; did you mean droid\?"):
        KeyMap.read("droit")
    with pytest.raises(ConfigError, match="no such file"):
        KeyMap.read(tmp_path / "other.yaml")


def test_parts_of_an_action_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("state: {q: 3}\nactions: {arm: 6, gripper: 1}\n")
    assert KeyMap.read(file).fitted(features(3), ()).actions == {"arm": 6, "gripper": 1}
    file.write_text("state: {q: 3}\nactions: {arm: 6}\n")
    with pytest.raises(ConfigError, match=r"expected an action of 7 numbers, got 6 \(arm 6\)"):
        KeyMap.read(file).fitted(features(3), ())


def test_one_s_own_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs" / "keys"
    folder.mkdir(parents=True)
    layout = {
        "state": {"robot/q": 2, "robot/grip": 1},
        "cameras": {"rgb": ["top"]},
        "task": "what",
        "ignore": ["debug"],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(layout, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    keys = KeyMap.read("mine").fitted(features(3, "top"), ("top",))
    message = {"robot": {"q": [1, 2], "grip": 3}, "rgb": PICTURE, "what": "go", "debug": {"a": {"b": 1}}}
    picked = keys.observation(message)
    assert [(key, width) for key, width, _ in picked.state] == [("robot/q", 2), ("robot/grip", 1)]
    assert picked.task == ("what", "go")
    with pytest.raises(RequestRefused, match=r"robot/grip: expected this part of the state"):
        keys.observation({"robot/q": [1, 2]})


@pytest.mark.parametrize(
    "message",
    [
        {"state": 0, "images": {"top": 1}, "task": "go"},
        {"observation/state": 0, "observation/top": 1, "prompt": "go"},
        {"observation.state": 0, "observation.images.top": 1, "prompt": "go"},
        {"observation": {"state": 0, "images": {"top": 1}}, "task": "go"},
        {"state": 0, "images/top": 1, "prompt": "go"},
    ],
)
def test_a_checkpoint_s_own_names(message: dict[str, Any]) -> None:
    picked = KeyMap.of(features(3, "top")).observation(message)
    assert [(width, value) for _, width, value in picked.state] == [(3, 0)]
    assert picked.images["top"][1] == 1
    assert picked.task is not None
    assert picked.task[1] == "go"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"state": 0, "observation/state": 0}, "observation/state: expected it once, got it as state too"),
        ({"images": {"top": 1}, "images/top": 1}, "images/top: expected it once, got it both nested and not"),
        (
            {"images": {"tpo": 1}},
            r"images/tpo: .*, got a key that is none of them; did you mean images/top",
        ),
        ({"images": {"top": 1}, "observation/top": 1}, "expected camera 'top' once"),
        ({"images": 3}, "images: expected one of"),
        ({"proprio": 0}, r"proprio: expected one of \['state', 'images/top', 'task'\]"),
        ({b"state": 0}, "expected keys of text"),
        ({"a": {"b": {"c": {}}}}, "no map this deep"),
        ({"k" * 1000: 0}, "expected keys of text, 256 characters at most, got str"),
        ({str(number): 0 for number in range(300)}, "at most 256 keys, got 300"),
        ({"a": {str(number): 0 for number in range(200)}, "b": {str(n): 0 for n in range(200)}}, "at most 256 keys"),
    ],
)
def test_wrong_names_are_refused(message: dict[Any, Any], said: str) -> None:
    with pytest.raises(RequestRefused, match=said):
        KeyMap.of(features(3, "top")).observation(message)


def test_a_checkpoint_without_a_state_does_not_look_at_one() -> None:
    keys = KeyMap.of(Features(None, VectorFeature.of_width(2, "a"), cameras={"top": CameraFeature(4, 4)}))
    assert keys.observation({"state": 1, "images": {"top": 2}}).state == ()
