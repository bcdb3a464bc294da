"""Episodes without words in a dataset that has language. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

from menura.data.checking.report import Finding, Place
from menura.data.checking.tables import Context, Tables


class Language:
    """Instructions that are missing."""

    def __init__(self, context: Context) -> None:
        self._expected = context.features.language
        self._silent: list[int] = []
        self._episodes = 0

    def see(self, tables: Tables) -> None:
        self._episodes += 1
        if not tables.task.strip():
            self._silent.append(tables.index)

    def findings(self) -> Iterable[Finding]:
        some = 0 < len(self._silent) < self._episodes
        if not self._silent or not (some or self._expected):
            return
        yield Finding(
            "no_language",
            "warning",
            f"{len(self._silent)} of {self._episodes} episodes have no instruction",
            "Train a policy that does not read `task`, or give them an instruction in words: "
            "menura data rename SRC -o DST --tasks '=…'",
            1.0,
            tuple(map(Place, self._silent)) if some else (),
        )
