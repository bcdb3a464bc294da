"""Reports kept in the cache, so that the same data is checked once. Torch-free."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from menura.data.cache import cache_root
from menura.data.checking.report import Report
from menura.files import write_json

log = logging.getLogger(__name__)


def place(cache_dir: str | Path | None, fingerprint: str, pictures: str) -> Path:
    """Where the report of this data is kept: by the data, by how much is looked at, and by the checks' own source."""
    digest = hashlib.sha256(json.dumps([fingerprint, pictures]).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return cache_root(cache_dir) / "checks" / f"{digest.hexdigest()[:32]}.json"


def load(path: Path) -> Report | None:
    """The report, or None where there is none that can be read."""
    try:
        return Report.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: not a report (%s); the dataset is checked again", path, error)
        return None


def save(path: Path, report: Report) -> None:
    """Keeps a report; where the cache cannot be written, the next check looks again."""
    try:
        write_json(path, report.to_dict())
    except OSError as error:
        log.warning("%s: cannot be written (%s); the dataset will be checked again", path, error.strerror)
