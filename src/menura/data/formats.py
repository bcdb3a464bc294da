"""The formats that are read, and how each is recognised from its files.

Readers are named, not imported, so that a task's YAML can be checked against them: this module lies below the others.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from menura.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Format:
    """A format of datasets.

    Attributes:
        title: what people call it.
        reader: `module:Class`, made with `(path, *, keys, episodes, name, …)`.
    """

    title: str
    reader: str

    def load(self) -> type[Any]:
        """The reader's class, a `menura.data.Reader`."""
        reader: type[Any] = _load(self.reader)
        return reader


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


_READERS = "menura.data.readers"
#: What `format:` may say.
FORMATS = {
    "lerobot": Format("LeRobotDataset v3.0", f"{_READERS}.lerobot:LeRobotReader"),
    "lerobot_v2": Format("LeRobotDataset v2.0, v2.1", f"{_READERS}.lerobot_v2:LeRobotV2Reader"),
    "aloha": Format("ALOHA / ACT HDF5", f"{_READERS}.aloha:AlohaReader"),
    "robomimic": Format("robomimic HDF5", f"{_READERS}.robomimic:RobomimicReader"),
    "libero": Format("LIBERO HDF5", f"{_READERS}.libero:LiberoReader"),
    "minari": Format("Minari HDF5", f"{_READERS}.minari:MinariReader"),
    "menura": Format("Menura HDF5", f"{_READERS}.menura_hdf5:MenuraHdf5Reader"),
    "zarr": Format("Diffusion Policy Zarr", f"{_READERS}.zarr:ZarrReader"),
    "rlds": Format("RLDS / TFDS", f"{_READERS}.rlds:RldsReader"),
}
_VERSION_2 = re.compile(r'"codebase_version":\s*"v2\.')
_HIDDEN = re.compile(r"(^|/)\.")  # files that are still being written
_HDF5_SUFFIXES = (".hdf5", ".h5")


def find_format(name: str) -> Format:
    """By its name; DataError with the nearest one."""
    if name not in FORMATS:
        raise DataError(f"format: expected one of {list(FORMATS)}, got {name!r}{did_you_mean(name, FORMATS) or '.'}")
    return FORMATS[name]


def recognise(path: Path) -> str:
    """The name of the format of an existing file or directory.

    Raises:
        DataError: nothing here looks like any of them.
    """
    if path.is_dir():
        name = _of_directory(path)
    elif path.name.endswith(".zarr.zip"):
        name = "zarr"
    else:
        name = _of_hdf5(path) if path.suffix in _HDF5_SUFFIXES else None
    if name is None:
        known = ", ".join(each.title for each in FORMATS.values())
        raise DataError(
            f"Dataset {path}: expected files of one of {known}, found none. Say `format:` if it is one of them, "
            f"or write a class with __len__ and episode(i) (docs: custom datasets)."
        )
    return name


def _of_directory(path: Path) -> str | None:
    info = path / "meta" / "info.json"
    if info.exists():
        # Not parsed: what is wrong with a damaged one is told by the reader.
        text = info.read_text(encoding="utf-8", errors="replace")
        return "lerobot_v2" if _VERSION_2.search(text) else "lerobot"
    if (path / ".zgroup").exists() or (path / "meta" / "episode_ends").exists():
        return "zarr"
    if next(path.glob("**/features.json"), None) is not None:
        return "rlds"
    if (path / "menura.json").exists():
        return "menura"
    files = (file for suffix in _HDF5_SUFFIXES for file in path.rglob(f"*{suffix}"))
    finished = [file for file in files if not _HIDDEN.search(file.relative_to(path).as_posix())]
    return _of_hdf5(min(finished)) if finished else None


def _of_hdf5(path: Path) -> str | None:
    name: str | None = _load(f"{_READERS}.hdf5:hdf5_format")(path)
    return name
