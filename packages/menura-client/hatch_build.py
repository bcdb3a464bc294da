"""Puts the files that are shared with menura into the distributions; a source distribution holds them already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHARED = (
    "errors.py",
    "py.typed",
    "serving/__init__.py",
    "serving/client.py",
    "serving/codec.py",
    "serving/connection.py",
    "serving/line.py",
)


class SharedFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Reads them where they are kept, beside this directory in the repository."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        source = Path(self.root).parents[1] / "src" / "menura"
        if source.is_dir():
            build_data["force_include"].update({str(source / name): f"menura_client/{name}" for name in SHARED})
