"""Where what is derived from datasets is kept. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir` where one is given, else `$MENURA_CACHE`, else `~/.cache/menura`."""
    return Path(cache_dir or os.environ.get("MENURA_CACHE") or Path.home() / ".cache" / "menura").expanduser()
