"""Commands that mend a dataset: what a remedy ends with. None touches its source. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

from menura.data.checking.report import Place, ranges

TRIM_IDLE = "menura data trim SRC -o DST --idle"


def delete(places: Iterable[Place]) -> str:
    """The command that leaves these episodes out."""
    episodes = sorted({place.episode for place in places})
    return f"menura data delete SRC -o DST --episodes {ranges(episodes, shown=len(episodes)).replace(' ', '')}"
