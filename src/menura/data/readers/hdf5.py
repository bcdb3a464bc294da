"""What the readers of HDF5 files share."""

from __future__ import annotations

from pathlib import Path

import h5py


def hdf5_format(path: Path) -> str | None:
    """Which of `menura.data.formats.FORMATS` a file is laid out as; None for none of them."""
    with h5py.File(path, "r") as file:
        if file.attrs.get("format") == "menura":
            return "menura"
        if "data" in file and any(name.startswith("demo") for name in file["data"]):
            return "libero" if "problem_info" in file["data"].attrs else "robomimic"
        if "observations" in file and "action" in file:
            return "aloha"
        if any(name.startswith("episode_") for name in file):
            return "minari"
    return None
