"""Data is checked before anything is learnt from it: errors are refused, warnings are told in a few lines."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

from rich.console import Console

from menura.data import Reader, check_dataset
from menura.data.checking import Finding
from menura.data.selection import Filter, episodes_left
from menura.errors import DataError
from menura.training.run_directory import is_main_process

_TOLD = 3


def require_sound_data(
    readers: Sequence[Reader],
    filters: Sequence[Filter],
    *,
    allow_bad_data: bool = False,
    cache_dir: str | Path | None = None,
) -> None:
    """Checks tables, and videos by their headers; the result is kept, so that the same data is checked once.

    The main process does, for all.

    Args:
        filters: of each dataset; what is wrong in episodes that they leave out is no error.
        allow_bad_data: errors are told like warnings.

    Raises:
        DataError: there are errors.
    """
    if not is_main_process():
        return
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for reader, filter in zip(readers, filters, strict=True):
        used = set(episodes_left(reader, filter).tolist())
        report = check_dataset(reader, pictures="none", cache_dir=cache_dir, progress=console.is_terminal)
        errors, warnings = _of_episodes(report.errors, used), _of_episodes(report.warnings, used)
        if errors and not allow_bad_data:
            raise DataError(
                f"Dataset {reader.name!r}: expected sound data, got {_told(errors)}. `menura data check` shows all and "
                "how to mend it; leave episodes out by `filter:`, or train all the same with --allow_bad_data."
            )
        if told := [*errors, *warnings]:
            console.print(f"Data {report.dataset!r}: {_told(told)}; `menura data check` says more.")


def _of_episodes(findings: Sequence[Finding], used: Set[int]) -> list[Finding]:
    """Those that are of the whole dataset, or of an episode that is used."""
    return [finding for finding in findings if not finding.episodes or not used.isdisjoint(finding.episodes)]


def _told(findings: Sequence[Finding]) -> str:
    """The first few, in one line."""
    lines = [
        f"{finding.kind}{f' in {finding.subject}' if finding.subject else ''} ({finding.where}): {finding.message}"
        for finding in findings[:_TOLD]
    ]
    more = len(findings) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more else "")
