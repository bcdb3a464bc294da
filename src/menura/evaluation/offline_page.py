"""`offline.html`: the verdict, each dimension of the action, and what was answered beside what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import menura
from menura.evaluation.charts import Point, line_chart
from menura.evaluation.page import render
from menura.files import write_text

if TYPE_CHECKING:
    from menura.evaluation.offline import OfflineEvaluation

_PLOTTED_EPISODES, _PLOTTED_DIMENSIONS = 4, 6


def write_offline_page(path: Path, found: OfflineEvaluation) -> None:
    """Writes the page: the worst episodes, and of them the dimensions that are farthest off."""
    worst = sorted(found.errors, key=lambda index: -found.errors[index].score)[:_PLOTTED_EPISODES]
    page = render(
        "offline.html.jinja",
        dataset=found.dataset,
        policy=found.policy,
        verdict=str(found),
        dimensions=list(zip(found.names, found.absolute, found.in_spreads, strict=True)),
        plotted=[_plotted(found, index) for index in worst],
        version=menura.__version__,
    )
    write_text(path, page)


def _plotted(found: OfflineEvaluation, index: int) -> dict[str, Any]:
    error, recorded = found.errors[index], found.recorded[index]
    farthest = np.argsort(-error.in_spreads.mean(axis=0), kind="stable")[:_PLOTTED_DIMENSIONS]
    charts = []
    for place in sorted(farthest):
        name = error.names[place]
        was = [Point(frame, float(value)) for frame, value in enumerate(recorded[:, place])]
        answered = recorded[:, place] + error.difference[:, place]
        said = [Point(frame, float(value)) for frame, value in enumerate(answered)]
        told = f"{name} over the frames of episode {index}, answered and recorded"
        charts.append((name, line_chart(said, told, beside=was)))
    return {"index": index, "score": error.score, "charts": charts}
