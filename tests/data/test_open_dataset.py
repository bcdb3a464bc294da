"""Any dataset by one function: a path, a class by name, an object of the user's own."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data import Episode, LeRobotReader, LeRobotWriter, Reader, UserReader, open_dataset
from menura.data.formats import FORMATS
from menura.errors import ComponentError, ConfigError, ContractError, DataError, FeatureMismatch
from menura.features import CameraFeature, Features, VectorFeature


def episode(index: int, length: int = 5, *, task: str = "push", width: int = 8) -> Episode:
    return Episode(
        state=np.full((length, 3), index),
        action=np.full((length, 2), index),
        images={"top": np.full((length, 6, width, 3), index, np.uint8)},
        task=task,
        fps=10,
    )


class Plain:
    """All that a user must write."""

    def __len__(self) -> int:
        return 3

    def episode(self, index: int) -> Episode:
        return episode(index, length=5 + index)


def save(root: Path) -> Path:
    features = Features(
        state=VectorFeature(("x", "y", "z")),
        action=VectorFeature(("u", "v")),
        cameras={"top": CameraFeature(6, 8)},
        fps=10.0,
        language=True,
    )
    with LeRobotWriter(root, features, video=False) as writer:
        writer.add_episode(episode(0))
    return root


# Paths


def test_path(tmp_path: Path) -> None:
    save(tmp_path / "pushes")
    for given in (tmp_path / "pushes", str(tmp_path / "pushes")):
        reader = open_dataset(given)
        assert isinstance(reader, LeRobotReader)
        assert reader.name == "pushes"


def test_no_such_path(tmp_path: Path) -> None:
    save(tmp_path / "pushes")
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path / "pushs")
    assert str(caught.value) == (
        f"Dataset {tmp_path / 'pushs'}: expected a file or a directory, found nothing; did you mean pushes?"
    )


def test_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    titles = ", ".join(format.title for format in FORMATS.values())
    assert str(caught.value) == (
        f"Dataset {tmp_path}: expected files of one of {titles}, found none. Say `format:` if it is one of them, "
        f"or write a class with __len__ and episode(i) (docs: custom datasets)."
    )


def test_format_is_said(tmp_path: Path) -> None:
    save(tmp_path / "pushes")
    assert len(open_dataset(tmp_path / "pushes", format="lerobot")) == 1
    with pytest.raises(DataError, match=r"format: expected one of .*, got 'le_robot'; did you mean lerobot\?"):
        open_dataset(tmp_path / "pushes", format="le_robot")


@pytest.mark.parametrize("name", FORMATS)
def test_every_reader_takes_the_same(name: str) -> None:
    """And its options have a default: what cannot be known is asked for in words, not by a TypeError."""
    parameters = inspect.signature(FORMATS[name].load()).parameters
    assert next(iter(parameters)) == "path"
    assert {"keys", "episodes", "name"} <= parameters.keys()
    for parameter in list(parameters.values())[1:]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty


def test_a_damaged_description_is_told_by_the_reader(tmp_path: Path) -> None:
    save(tmp_path / "pushes")
    info = tmp_path / "pushes/meta/info.json"
    info.write_bytes(info.read_bytes()[:40])
    with pytest.raises(DataError, match=rf"{info}: not JSON .*Fetch the file again"):
        open_dataset(tmp_path / "pushes")


# By class


MY_DATA = """
    import numpy as np
    from menura.data import Episode


    class MyData:
        def __init__(self, count, scale=1.0):
            self.count, self.scale = count, scale

        def __len__(self):
            return self.count

        def episode(self, index):
            return Episode(state=np.ones((4, 2)) * self.scale, action=np.ones((4, 1)) * index, fps=10)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/my_data.py").write_text("\n".join(line[4:] for line in MY_DATA.split("\n")))
    return tmp_path


def test_a_class_of_the_project(project: Path) -> None:
    reader = open_dataset({"class": "MyData", "args": {"count": 3}}, project=project)
    assert isinstance(reader, UserReader)
    assert reader.name == "MyData"
    assert len(reader) == 3
    assert reader.lengths().tolist() == [4, 4, 4]
    assert open_dataset({"class": "MyData", "args": {"count": 3}, "name": "mine"}, project=project).name == "mine"


def test_the_arguments_are_part_of_the_fingerprint(project: Path) -> None:
    def fingerprint(**args: Any) -> str:
        return open_dataset({"class": "MyData", "args": args}, project=project).fingerprint()

    assert fingerprint(count=3) == fingerprint(count=3)
    assert fingerprint(count=3) != fingerprint(count=3, scale=1.0)
    assert fingerprint(count=3) != fingerprint(count=2)


def test_a_path_as_in_a_task(tmp_path: Path) -> None:
    save(tmp_path / "pushes")
    reader = open_dataset({"path": "pushes", "keys": {"images": []}, "name": "mine"}, project=tmp_path)
    assert isinstance(reader, LeRobotReader)
    assert reader.name == "mine"
    assert not reader.features.cameras


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            {"class": "MyData", "args": {"cuont": 3}},
            ConfigError,
            "dataset.args.cuont: no such argument of MyData; did you mean count? MyData takes ['count', 'scale'].",
        ),
        (
            {"class": "MyData"},
            ConfigError,
            "dataset.args: missing a required argument: 'count'. MyData takes ['count', 'scale'].",
        ),
        (
            {"clas": "MyData"},
            ConfigError,
            "dataset: expected keys ['path', 'format', 'class', 'args', 'keys', 'filter', 'wrappers', 'name', "
            "'weight'], got 'clas'; did you mean class?",
        ),
        ({"args": {}}, ConfigError, "dataset: expected a key 'path' or 'class', got ['args']."),
    ],
)
def test_wrong_specs(project: Path, spec: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        open_dataset(spec, project=project)
    assert str(caught.value) == message


def test_keys_of_the_dataset_are_no_arguments(tmp_path: Path) -> None:
    save(tmp_path / "pushes")
    with pytest.raises(ConfigError, match=r"dataset\.args\.keys: expected beside args, as a key of the dataset"):
        open_dataset({"path": "pushes", "args": {"keys": {"images": []}}}, project=tmp_path)


def test_unknown_class(project: Path) -> None:
    with pytest.raises(ComponentError, match="MyDat"):
        open_dataset({"class": "MyDat"}, project=project)


# A user's own object


def test_an_object() -> None:
    reader = open_dataset(Plain())
    assert reader.name == "Plain"
    assert reader.features == Features(
        state=VectorFeature(("state_0", "state_1", "state_2")),
        action=VectorFeature(("action_0", "action_1")),
        cameras={"top": CameraFeature(6, 8)},
        fps=10.0,
        language=True,
    )
    assert reader.lengths().tolist() == [5, 6, 7]
    assert reader.episode(2).state[0, 0] == 2
    assert reader.metadata(0) == {}
    with pytest.raises(IndexError):
        reader.episode(3)


def test_a_reader_is_itself(tmp_path: Path) -> None:
    reader = LeRobotReader(save(tmp_path / "pushes"))
    assert open_dataset(reader) is reader


def test_a_subclass_of_reader_that_says_nothing_more() -> None:
    class Derived(Reader):
        def __len__(self) -> int:
            return 2

        def episode(self, index: int) -> Episode:
            return episode(index)

    reader = open_dataset(Derived())
    assert reader.lengths().tolist() == [5, 5]
    assert len(reader.fingerprint()) == 64


def test_a_torch_dataset() -> None:
    torch_data = pytest.importorskip("torch.utils.data")

    class Items(Plain, torch_data.Dataset):  # type: ignore[misc, name-defined]
        def __getitem__(self, index: int) -> int:
            return index

    assert open_dataset(Items()).lengths().tolist() == [5, 6, 7]


def test_what_the_object_says_itself_is_used() -> None:
    class Rich(Plain):
        name = "rich"
        features = Features(state=VectorFeature(("x", "y", "z")), action=VectorFeature(("u", "v")), fps=10.0)

        def lengths(self) -> list[int]:
            return [5, 6, 7]

        def fingerprint(self) -> str:
            return "abc"

        def metadata(self, index: int) -> dict[str, Any]:
            return {"seed": index}

        def episode(self, index: int) -> Episode:
            return Episode(state=np.zeros((5 + index, 3)), action=np.zeros((5 + index, 2)), fps=10)

    reader = open_dataset(Rich())
    assert (reader.name, reader.fingerprint(), reader.metadata(1)) == ("rich", "abc", {"seed": 1})
    assert reader.features is Rich.features
    assert reader.lengths().dtype == np.int64


class Undecodable:
    """Frames that fail the test when decoded."""

    shape = (5, 6, 8, 3)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: Any) -> np.ndarray:
        raise AssertionError("decoded")


def test_lengths_and_fingerprint_decode_nothing() -> None:
    class Lazy(Plain):
        def episode(self, index: int) -> Episode:
            return Episode(state=None, action=np.ones((5, 1)), images={"top": Undecodable()}, fps=5)  # type: ignore

    reader = open_dataset(Lazy())
    assert reader.lengths().tolist() == [5, 5, 5]
    assert reader.fingerprint()


def test_the_fingerprint_follows_the_content() -> None:
    class Changing(Plain):
        value = 0

        def episode(self, index: int) -> Episode:
            pixels = np.full((5, 6, 8, 3), self.value, np.uint8)
            return Episode(state=np.ones((5, 3)), action=np.ones((5, 2)), images={"top": pixels}, fps=5)

    first, second = Changing(), Changing()
    assert open_dataset(first).fingerprint() == open_dataset(second).fingerprint()
    second.value = 1
    assert open_dataset(first).fingerprint() != open_dataset(second).fingerprint()


class NoLength:
    def episode(self, index: int) -> Episode:
        return episode(index)


class Misnamed:
    def __len__(self) -> int:
        return 3

    def episodes(self, index: int) -> Episode:
        return episode(index)


class Empty(Plain):
    def __len__(self) -> int:
        return 0


class ReturnsDict(Plain):
    def episode(self, index: int) -> Any:
        return {"state": [], "action": []}


class WrongFeatures(Plain):
    features = ("state", "action")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (NoLength(), "Dataset NoLength: expected methods __len__ and episode(i), got no __len__."),
        (
            Misnamed(),
            "Dataset Misnamed: expected methods __len__ and episode(i), got no episode; did you mean episodes?",
        ),
        (Empty(), "Dataset Empty: __len__: expected at least 1 episode, got 0."),
        (
            ReturnsDict(),
            "Dataset ReturnsDict: episode(0): expected a menura.data.Episode, got dict. "
            "Return Episode(state=…, action=…, images={…}, task=…, fps=…).",
        ),
        (
            WrongFeatures(),
            "Dataset WrongFeatures: features: expected a menura.features.Features, got tuple. "
            "Leave it out to have it inferred.",
        ),
        (Plain, "Dataset Plain: expected an object, got the class. Make one: Plain(…)."),
        (
            (episode(index) for index in range(3)),
            "Dataset generator: expected methods __len__ and episode(i), got no __len__.",
        ),
        (42, "Dataset int: expected methods __len__ and episode(i), got no __len__."),
    ],
)
def test_objects_that_are_no_datasets(dataset: Any, message: str) -> None:
    with pytest.raises(ContractError) as caught:
        open_dataset(dataset)
    assert str(caught.value) == message


def test_an_episode_unlike_the_first() -> None:
    class Uneven(Plain):
        def episode(self, index: int) -> Episode:
            return episode(index, width=8 + index)

    reader = open_dataset(Uneven())
    with pytest.raises(FeatureMismatch) as caught:
        reader.lengths()
    assert str(caught.value) == (
        "Dataset Uneven: episode(1): cameras (height, width): "
        "expected {'top': (6, 8)} as the dataset has, got {'top': (6, 9)}."
    )


def test_wrong_lengths() -> None:
    class Wrong(Plain):
        def lengths(self) -> list[float]:
            return [1.0, 2.0, 3.0]

    with pytest.raises(ContractError) as caught:
        open_dataset(Wrong()).lengths()
    assert str(caught.value) == (
        "Dataset Wrong: lengths(): expected 3 integers, one an episode, got float64 of shape (3,)."
    )


# The package


def test_reading_and_writing_need_no_torch(tmp_path: Path) -> None:
    save(tmp_path / "pushes")
    code = f"""
import sys
from menura.data import Episode, LeRobotWriter, StatisticsBuilder, open_dataset
reader = open_dataset({str(tmp_path / "pushes")!r})
reader.episode(0).images["top"][:]
heavy = [name for name in ("torch", "transformers", "gymnasium") if name in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_functions_keep_their_names_beside_modules() -> None:
    """`menura.data.windows` is the function, though a module of that name is imported."""
    import menura.data
    import menura.data.collate
    import menura.data.windows

    assert callable(menura.data.windows)
    assert callable(menura.data.collate)
