"""Files of a dataset that lie elsewhere (`s3://`, `hf://`, …), fetched when they are needed. Torch-free.

What a dataset says of itself (`meta/`) is fetched once. Data files and videos are fetched by each process for itself
into a directory that is bounded: those used longest ago make way. So a dataset may be larger than the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import filelock

from menura.data.cache import cache_root
from menura.errors import DataError
from menura.files import TEMPORARY, replacing

META = "meta"
_LOCK = ".lock"
# A file asked for within so many requests never makes way: a batch asks for each of its files a few times.
_RECENT = 4096


class Mirror:
    """A directory on another filesystem.

    Args:
        url: as fsspec takes it; what it needs to know besides comes from where its package looks (environment, …).
        cache_dir: below which files are kept; None for `$MENURA_CACHE`, else `~/.cache/menura`.
        budget_bytes: what data files and videos may take, for each process that reads.

    Raises:
        DataError: the place cannot be reached, is empty, or its package is not installed.
    """

    def __init__(self, url: str, *, cache_dir: str | Path | None = None, budget_bytes: float = 20e9) -> None:
        self.url = url.rstrip("/")
        self._budget = budget_bytes
        self._cache = cache_root(cache_dir) / "mirror" / hashlib.sha256(self.url.encode()).hexdigest()[:32]
        self._listing = self._list()
        self._own: _OwnDirectory | None = None
        # File -> its bytes and the number of its last request, the one asked for last at the end.
        self._kept: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._requests = 0

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return PurePosixPath(self.url).name

    def fetch_meta(self) -> Path:
        """The local directory with the files of `meta/`; what changed there is fetched again."""
        for file, version in self._listing.items():
            if file.split("/")[0] != META:
                continue
            local = self._cache / file
            note = local.with_name(f".{local.name}.version")
            if not local.exists() or not note.exists() or note.read_text() != version:
                self._fetch(file, local)
                with replacing(note) as temporary:
                    temporary.write_text(version)
        return self._cache

    def local(self, file: str) -> Path:
        """Where a data file or a video lies on this machine; it is fetched when it does not.

        The path holds for the next `_RECENT` requests.
        """
        if self._own is not None and self._own.process != os.getpid():  # a fork: the directory is the parent's
            self._own, self._kept = None, OrderedDict()
        if self._own is None:
            self._own = _OwnDirectory(self._cache)
        path = self._own.path / file
        self._requests += 1
        if file not in self._kept:
            self._fetch(file, path)
            size = path.stat().st_size
            self._make_way(size)
            self._kept[file] = (size, 0)
        self._kept[file] = (self._kept[file][0], self._requests)
        self._kept.move_to_end(file)
        return path

    def _make_way(self, nbytes: int) -> None:
        """Remove files that were not asked for lately, until there is room for so much in the budget."""
        assert self._own is not None
        for file, (_, request) in list(self._kept.items()):
            if self._used + nbytes <= self._budget or request > self._requests - _RECENT:
                return
            (self._own.path / file).unlink()
            del self._kept[file]

    @property
    def _used(self) -> int:
        return sum(size for size, _ in self._kept.values())

    def version(self, file: str) -> str:
        """What changes when the file's content does; empty where there is no such file."""
        return self._listing.get(file, "")

    def __getstate__(self) -> dict[str, Any]:
        # Each process fetches for itself.
        return {**self.__dict__, "_own": None, "_kept": OrderedDict(), "_requests": 0}

    def _list(self) -> dict[str, str]:
        """File, relative to the root -> its version."""
        with _told(self.url):
            system, root = _filesystem(self.url)
            found = system.find(root, detail=True)
        listing = {}
        for name, info in found.items():
            stamps = (info.get(key) for key in ("size", "ETag", "etag", "mtime", "LastModified", "created", "blob_id"))
            listing[name[len(root) :].lstrip("/")] = " ".join(str(stamp) for stamp in stamps if stamp is not None)
        if not listing:
            raise DataError(f"Dataset {self.url}: expected files, found nothing.")
        return listing

    def _fetch(self, file: str, local: Path) -> None:
        if file not in self._listing:
            raise DataError(f"Dataset {self.url}: expected a file {file}, found none. It is incomplete.")
        with _told(f"{self.url}/{file}"), replacing(local) as temporary:
            system, root = _filesystem(self.url)
            system.get_file(f"{root}/{file}", str(temporary))


class _OwnDirectory:
    """A directory of this process alone, removed when it ends; what killed processes left is removed at the next."""

    def __init__(self, parent: Path) -> None:
        files = parent / "files"
        files.mkdir(parents=True, exist_ok=True)
        for left in files.iterdir():
            lock = filelock.FileLock(left / _LOCK)
            with contextlib.suppress(filelock.Timeout, FileNotFoundError), lock.acquire(timeout=0):
                shutil.rmtree(left, ignore_errors=True)
        self.process = os.getpid()
        self.path = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-", dir=files))
        self._lock = filelock.FileLock(self.path / _LOCK)
        self._lock.acquire()
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's filesystem, and the path there."""
    import fsspec

    system, root = fsspec.core.url_to_fs(url)
    return system, root.rstrip("/")


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    """What fsspec's filesystems raise, as one message."""
    try:
        yield
    except ImportError as error:
        raise DataError(f"Dataset {place}: expected the package that reads it, got: {error}.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"Dataset {place}: expected to reach it, got: {error}.") from error
