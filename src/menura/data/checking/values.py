"""Numbers that are none. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from menura.data.checking.places import Places
from menura.data.checking.remedies import delete
from menura.data.checking.report import Finding
from menura.data.checking.tables import FEATURES, Context, Tables, runs


class NotFinite:
    """NaN and infinity: one of them makes every weight NaN."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._places: Places[str] = Places()
        self._dimensions: dict[str, set[int]] = {name: set() for name in FEATURES}

    def see(self, tables: Tables) -> None:
        for feature, finite in tables.finite.items():
            if finite.all():
                continue
            self._dimensions[feature] |= set(np.flatnonzero(~finite.all(axis=0)).tolist())
            for stretch in runs(np.asarray(~finite.all(axis=1))):
                self._places.add(feature, tables.index, stretch)

    def findings(self) -> Iterable[Finding]:
        for feature, places in self._places.items():
            names = self._context.names(feature)
            yield Finding(
                "nan",
                "error",
                "NaN or infinity",
                f"Mend the recording, or leave the episodes out: {delete(places)}",
                1.0,
                places,
                feature=feature,
                dimensions=tuple(names[number] for number in sorted(self._dimensions[feature])),
            )
