"""Which weights a training began with: `training.init_from`, as a checkpoint remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from menura.errors import CheckpointError
from menura.files import read_json, sha256, write_json

START_FILE = "init_from.json"


@dataclass(frozen=True)
class Start:
    """What became of the weights of another checkpoint; `init_from.json`.

    Attributes:
        source: its directory, or `owner/name` on the Hub.
        directory: where its files lie here.
        kind: what it is: a checkpoint of Menura, of transformers, of another program.
        files: its weight files -> sha256.
        matched: parameters and buffers taken as they are.
        resized: name -> what was taken of it, in words.
        mismatched: name -> why nothing was taken, though both have it.
        new: names that it lacks, which begin as the policy was made.
        unused: names of it that the policy lacks.
        notes: what equal shapes do not tell.
    """

    source: str
    directory: str
    kind: str
    files: Mapping[str, str] = field(default_factory=dict)
    matched: tuple[str, ...] = ()
    resized: Mapping[str, str] = field(default_factory=dict)
    mismatched: Mapping[str, str] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every weight of the policy is one of these files, so that they need not be stored again."""
        return bool(self.files) and not (self.resized or self.mismatched or self.new or self.unused)

    def write(self, directory: Path) -> None:
        write_json(directory / START_FILE, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> Start | None:
        """What a checkpoint says; None when it began with no other."""
        path = directory / START_FILE
        if not path.is_file():
            return None
        data: dict[str, Any] = read_json(path, CheckpointError)
        return cls(**{**data, **{name: tuple(data[name]) for name in ("matched", "new", "unused", "notes")}})

    def require_unchanged(self, needed_by: Path) -> Path:
        """The directory whose files still are what they were. CheckpointError otherwise."""
        directory = Path(self.directory)
        for name, expected in self.files.items():
            path = directory / name
            got = sha256(path) if path.is_file() else "no such file"
            if got != expected:
                raise CheckpointError(
                    f"{needed_by}: expected the weights its adapters were trained on in {path} "
                    f"(sha256 {expected[:12]}…), got {got[:12]}. Put them back there."
                )
        return directory
