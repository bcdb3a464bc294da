"""Datasets elsewhere, and those of the Hugging Face Hub; `huggingface_hub` is imported when one is fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from menura.errors import DataError

_SCHEME = "hf://datasets/"
_PART = r"[A-Za-z0-9][\w.-]*"
_ID = re.compile(rf"({_PART})/({_PART})(?:@([\w./-]+))?")


def is_remote(place: str | Path) -> bool:
    """Whether a path names a place on another machine, as fsspec knows them: `s3://bucket/name`."""
    return isinstance(place, str) and "://" in place and not place.startswith("file://")


@dataclass(frozen=True)
class HubDataset:
    """A dataset repository.

    Attributes:
        repository: `owner/name`.
        revision: a branch, a tag or a commit; the main branch where None. No tag is required.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def of(cls, text: str, *folders: Path) -> HubDataset | None:
        """The dataset that a path in a YAML names; None where it is a path.

        `hf://datasets/owner/name` is always one. `owner/name` is one where none of the `folders` has a folder `owner`:
        `data/cub` beside `data/cube` is a path with a mistake. Either may end in `@revision`.
        """
        match = _ID.fullmatch(text.removeprefix(_SCHEME))
        if match is None:
            return None
        owner, name, revision = match.groups()
        if not text.startswith(_SCHEME) and any((folder / owner).is_dir() for folder in folders):
            return None
        return cls(f"{owner}/{name}", revision)

    @property
    def name(self) -> str:
        return self.repository.rpartition("/")[2]

    @property
    def url(self) -> str:
        """As fsspec takes it."""
        return f"{_SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision else "")

    def at(self, commit: str) -> HubDataset:
        """The same at one commit, so that what is fetched later belongs to what was fetched before."""
        return replace(self, revision=commit)

    def fetch(self, patterns: Sequence[str] | None = None) -> Path:
        """The folder of the Hub's cache with the files that match (all where None); its name is the commit.

        Only what the cache lacks is downloaded. Without a network what the cache has is used.

        Raises:
            DataError: there is no such dataset or revision, or the Hub cannot be reached and the cache lacks files.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        what = f"Dataset {self.repository}"
        # OSError, and what the HTTP library raises, whichever that is.
        failures = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
        try:
            folder = snapshot_download(
                self.repository,
                repo_type="dataset",
                revision=self.revision,
                allow_patterns=None if patterns is None else list(patterns),
            )
        except RevisionNotFoundError as error:
            raise DataError(f"{what}: expected a branch, tag or commit, got {self.revision!r}.") from error
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise DataError(
                f"{what}: expected a path or a dataset of the Hub, found neither. If it is private or gated, log in: "
                f"hf auth login."
            ) from error
        except failures as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{what}: neither a path, nor whole in the Hub's cache, and the Hub cannot be asked ({reason}). "
                f"Connect to the network, or fetch it elsewhere: hf download --repo-type dataset {self.repository}."
            ) from error
        return Path(folder)
