"""What is shown of augmentations is what is trained: the pictures of the data, changed by the seed, in their units."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data import open_dataset
from menura.data.pictures import decode_picture
from menura.data.tools.editing import convert
from menura.errors import ConfigError
from menura.processing.images import resize_images
from menura.training.augmented import AugmentedFrames

PROJECT = Path(__file__).with_name("project")
TASK = """
datasets: [data/not_there]
policy: {class: PixelPolicy, args: {image_size: 16}}
augmentations:
  - {class: RandomShift, args: {pixels: 2}}
  - {class: ActionNoise, args: {std: 0.1}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, a task that augments, and a dataset that is not the task's own; pixels are normalized."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    policy = project / "policy/seeing_policies.py"
    size = "self.n_obs_steps, self.image_size = n_obs_steps, image_size"
    policy.write_text(policy.read_text().replace(size, f'{size}\n        self.image_normalize = "imagenet"'))
    (project / "configs/task/shifted.yaml").write_text(TASK)
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(project)
    convert({"class": "SeenData"}, "made", lossless=True, progress=False)
    return project


def pixels(url: str) -> np.ndarray:
    return decode_picture(base64.b64decode(url.removeprefix("data:image/png;base64,")), "tile").astype(int)


def shifts(picture: np.ndarray, most: int) -> list[np.ndarray]:
    padded = np.pad(picture, ((most, most), (most, most), (0, 0)), mode="edge")
    height, width = picture.shape[:2]
    offsets = range(2 * most + 1)
    return [padded[row : row + height, column : column + width] for row in offsets for column in offsets]


def test_what_is_shown_is_what_is_trained(project: Path) -> None:
    frames = AugmentedFrames("shifted", {"path": "made"})
    shown, episode = frames.show(2, 7, range(5, 9)), open_dataset("made").episode(2)
    assert shown["task"] == "shifted"
    assert shown["augmentations"] == ["RandomShift(pixels=2)", "ActionNoise(std=0.1)"]
    assert [camera["name"] for camera in shown["cameras"]] == ["left", "right"]
    different = set()
    for camera in shown["cameras"]:
        original, augmented = pixels(camera["original"]), [pixels(each) for each in camera["augmented"]]
        np.testing.assert_array_equal(original, resize_images(episode.images[camera["name"]][7], (16, 16)))
        allowed = shifts(original, 2)
        assert all(any(np.array_equal(each, one) for one in allowed) for each in augmented)
        different |= {each.tobytes() for each in augmented}
    assert len(different) > 4
    assert shown["state"] is None  # nothing changes it
    np.testing.assert_allclose(shown["actions"]["original"], episode.action[7:8], atol=1e-5)
    noise = np.array(shown["actions"]["augmented"]) - shown["actions"]["original"]  # (seed, T, A)
    actions = np.concatenate([open_dataset("made").episode(index).action for index in range(4)])
    assert 0 < np.abs(noise / actions.std(axis=0)).max() < 0.5
    assert frames.show(2, 7, [6])["cameras"][0]["augmented"][0] == shown["cameras"][0]["augmented"][1]


def test_a_task_without_augmentations(project: Path) -> None:
    (project / "configs/task/plain.yaml").write_text(TASK.partition("augmentations")[0])
    shown = AugmentedFrames("plain", {"path": "made"}).show(0, 0, range(3))
    assert shown["augmentations"] == []
    assert [camera["augmented"] for camera in shown["cameras"]] == [[], []]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("shiftd", "did you mean shifted"),
        ("encoded", "expected a task that is trained on pixels, got an image encoder"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_read(project: Path, task: str, message: str) -> None:
    encoded = TASK.replace("PixelPolicy, args: {image_size: 16}", "FeaturePolicy")
    (project / "configs/task/encoded.yaml").write_text(f"{encoded}\nimage_encoder: {{class: MeanColour}}\n")
    with pytest.raises(ConfigError, match=message):
        AugmentedFrames(task, {"path": "made"})


def test_torch_waits_for_the_first_frame(project: Path) -> None:
    code = (
        "import sys\nfrom menura.training.augmented import AugmentedFrames\n"
        "AugmentedFrames('shifted', {'path': 'made'})\nprint('torch' in sys.modules)"
    )
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
