"""Commands that mend a dataset. None touches its source. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

from menura.data.checking.report import Place

TRIM_IDLE = "menura data trim SRC -o DST --idle"
_LISTED = 20


def delete(places: Iterable[Place]) -> str:
    """The command that leaves these episodes out."""
    episodes = sorted({place.episode for place in places})
    listed = ",".join(map(str, episodes[:_LISTED])) + (",…" if len(episodes) > _LISTED else "")
    return f"menura data delete SRC -o DST --episodes {listed}"
