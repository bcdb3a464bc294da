"""`menura.json`: what a checkpoint says of itself, and the hash of every file beside it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from menura.errors import CheckpointError
from menura.features import Features
from menura.files import files_below, read_json, sha256, write_json

MANIFEST_FILE = "menura.json"
FORMAT = 1
CHANGED = "the file was changed or damaged after it was saved. Restore it from another copy."
LIBRARIES = ("menura", "torch", "transformers", "numpy", "safetensors")


@dataclass(frozen=True)
class Code:
    """Where a class lives.

    Attributes:
        name: the class.
        reference: as a task names it, looked up in the project.
        module: dotted name when it was saved.
        file: the copy of its source in the checkpoint; None where it belongs to an installed package.
    """

    name: str
    reference: str
    module: str
    file: str | None


@dataclass(frozen=True)
class Manifest:
    """What `menura.json` holds.

    Attributes:
        policy, image_encoder: their code; no encoder, None.
        features: what observations and actions mean.
        datasets: name -> fingerprint of what it was trained on, in the order of the statistics.
        seed: of the training.
        device: the kind of device that answered the golden observations.
        versions: library -> version.
        files: relative path -> sha256 of every file of the checkpoint but this one.
    """

    policy: Code
    image_encoder: Code | None
    features: Features
    datasets: Mapping[str, str]
    seed: int
    device: str
    versions: Mapping[str, str]
    files: Mapping[str, str]

    def write(self, directory: Path) -> None:
        values: dict[str, Any] = {"format": FORMAT, **asdict(self), "features": self.features.to_dict()}
        write_json(directory / MANIFEST_FILE, {**values, "digest": digest(values)})

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """CheckpointError when there is none, or one of another format."""
        path = directory / MANIFEST_FILE
        if not path.is_file():
            raise CheckpointError(_no_manifest(directory))
        data = read_json(path, CheckpointError)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            got = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise CheckpointError(f"{path}: expected format {FORMAT}, got {got!r}. Update Menura, or save it anew.")
        if data.get("digest") != digest(data):
            raise CheckpointError(f"{path}: expected sha256 {data.get('digest')}, got {digest(data)}: {CHANGED}")
        names = {field.name for field in fields(cls)}
        if set(data) != names | {"format", "digest"}:
            differing = sorted(set(data) ^ (names | {"format", "digest"}))
            raise CheckpointError(f"{path}: expected the keys {sorted(names)}, differing in {differing}.")
        try:
            code = Code(**data["policy"])
            encoder = None if data["image_encoder"] is None else Code(**data["image_encoder"])
            features = Features.from_dict(data["features"])
        except (TypeError, KeyError) as problem:
            raise CheckpointError(f"{path}: expected what menura.json holds, got a wrong entry: {problem}.") from None
        rest = {name: data[name] for name in ("datasets", "seed", "device", "versions", "files")}
        return cls(policy=code, image_encoder=encoder, features=features, **rest)


def library_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def digest(values: Mapping[str, Any]) -> str:
    """The sha256 of what a manifest says, whatever its layout."""
    said = {key: value for key, value in values.items() if key != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def hash_files(directory: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file but the manifest."""
    return {
        path.relative_to(directory).as_posix(): sha256(path)
        for path in files_below(directory)
        if path != directory / MANIFEST_FILE
    }


def check_hashes(directory: Path, manifest: Manifest) -> None:
    """CheckpointError names the first file that is missing or was changed. Files the manifest does not list may be."""
    for name, expected in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"{path}: expected this file of the checkpoint, got none. Copy the whole directory.")
        got = sha256(path)
        if got != expected:
            raise CheckpointError(f"{path}: expected sha256 {expected[:12]}…, got {got[:12]}…: {CHANGED}")


def fetching(path: Path) -> str:
    """What to do about a path that is not there and has the form of a Hub id, `owner/name`; else nothing."""
    if path.is_absolute() or len(path.parts) != 2 or path.parent.exists() or path.parts[0].startswith((".", "~")):
        return ""
    return f" If that is a repository of the Hub, `hf download {path.as_posix()} --local-dir {path.name}` gets it here."


def _no_manifest(directory: Path) -> str:
    where = f"{directory}: expected a checkpoint ({MANIFEST_FILE}), got"
    if not directory.exists():
        return f"{where} no such directory.{fetching(directory)}"
    inner = [path for path in directory.glob("checkpoint-*") if (path / MANIFEST_FILE).is_file()]
    if inner:
        newest = max(inner, key=lambda path: path.stat().st_mtime_ns)
        return f"{where} a run that is not finished. Use {newest}."
    return f"{where} a directory without one."
