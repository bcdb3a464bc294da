"""`report.html`: the verdict, curves, videos, every episode and the protocol, on one page that opens from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import menura
from menura.errors import DataError
from menura.evaluation.charts import Point, line_chart
from menura.evaluation.compare import compare
from menura.evaluation.page import duration, episode_videos, render, text_of
from menura.evaluation.protocol import flatten
from menura.evaluation.results import Results
from menura.evaluation.robustness import cost, sentence
from menura.files import read_json, write_text


@dataclass(frozen=True)
class Section:
    """One evaluation of the report.

    Attributes:
        title: the task's name.
        results: with its baselines.
        directory: what the paths of the videos are relative to; None for no videos.
        run: the directory of the training, for its curves.
        command: what repeats the evaluation.
    """

    title: str
    results: Results
    directory: Path | None = None
    run: Path | None = None
    command: str | None = None


def write_report(path: str | Path, sections: Sequence[Section], title: str = "Evaluation") -> Path:
    """Writes the page. It loads nothing from a network; videos too large to be inside are linked by relative path.

    Args:
        sections: one a task, in order.
        title: of the page, when there are several sections; one alone lends its own.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = render(
        "report.html.jinja",
        title=title if len(sections) != 1 else sections[0].title,
        sections=[_view(section, number, path.parent) for number, section in enumerate(sections)],
        version=menura.__version__,
    )
    write_text(path, page)
    return path


def _view(section: Section, number: int, page_directory: Path) -> dict[str, Any]:
    """What the template shows of a section."""
    results = section.results
    training = _training(section.run)
    videos = episode_videos(section.results, section.directory, page_directory)
    episodes = [
        {"result": episode, "video": videos.get(episode.index), "baselines": _outcomes(results, episode.seed)}
        for episode in results.episodes
    ]
    return {
        "id": f"task-{number + 1}",
        "title": section.title,
        "rates": [_rate("this policy", results, main=True)]
        + [_rate(name, baseline) for name, baseline in sorted(results.baselines.items())],
        "perturbed": [_perturbed(results, name) for name in results.perturbed],
        "measures": _measures(results),
        "times": _times(results, training["seconds"]),
        "remarks": _remarks(results),
        "curves": training["curves"],
        "training_time": duration(training["seconds"]) if training["seconds"] is not None else None,
        "episodes": episodes,
        "filmed": [episode for episode in episodes if episode["video"] is not None],
        "baseline_names": sorted(results.baselines),
        "results": results,
        "protocol": [(key, text_of(value)) for key, value in flatten(results.protocol).items()],
        "run": [(key, text_of(value)) for key, value in {**results.policy, **results.run}.items()],
        "command": section.command,
    }


def _rate(name: str, results: Results, main: bool = False) -> dict[str, Any]:
    low, high = results.interval
    return {
        "name": name,
        "main": main,
        "rate": results.success_rate or 0.0,
        "low": low,
        "high": high,
        "successes": results.successes,
        "episodes": len(results.episodes),
    }


def _remarks(results: Results) -> list[str]:
    """What the numbers do and do not say, in sentences."""
    remarks = []
    if not results.complete:
        remarks.append(f"Interrupted: {len(results.episodes)} of {results.asked} episodes are finished.")
    if results.stopping is not None:
        remarks.append(_stopping(results, results.stopping))
    for name, baseline in sorted(results.baselines.items()):
        if not results.episodes or not baseline.episodes:
            continue
        found = compare(results, baseline, allow_different_protocols=True)
        low, high = found.interval
        if found.verdict == "cannot tell":
            remarks.append(
                f"It cannot be told from the {name} baseline: {found.pairs} pairs of episodes show a difference of "
                f"{100 * found.detectable:.0f} points or more, not a smaller one."
            )
        else:
            remarks.append(
                f"It is {found.verdict} than the {name} baseline by {abs(100 * found.difference):.0f} points "
                f"(95 % interval {100 * low:+.0f} to {100 * high:+.0f})."
            )
    remarks += [f"Under {sentence(results, name)}" for name in results.perturbed if results.perturbed[name].episodes]
    return remarks


def _stopping(results: Results, stopping: Mapping[str, Any]) -> str:
    """How an evaluation ended that might have stopped early."""
    if stopping["stopped"] is None:
        told = f"It might have stopped early, and ran {len(results.episodes)} of {results.asked} episodes"
    else:
        told = f"Stopped after {len(results.episodes)} of {results.asked} episodes: {stopping['stopped']}"
    if stopping["rule"] == "against":
        low, high = stopping["difference_interval"]
        told += (
            f", a difference of {100 * stopping['difference']:+.0f} points (95 % interval {100 * low:+.0f} to "
            f"{100 * high:+.0f})"
        )
    return f"{told}. The intervals stay valid although one looked after each episode."


def _perturbed(results: Results, name: str) -> dict[str, Any]:
    """A perturbed arm beside the unperturbed one, seed by seed."""
    arm = results.perturbed[name]
    told: dict[str, Any] = {**_rate(name, arm), "difference": None, "interval": None}
    if arm.episodes and results.episodes:
        found = cost(results, name)
        told.update(difference=found.difference, interval=found.interval, verdict=found.verdict)
    return told


def _measures(results: Results) -> list[tuple[str, list[float | None]]]:
    """Of each measure its mean: this policy's, then the baselines'."""
    columns = [results.measures, *(baseline.measures for _, baseline in sorted(results.baselines.items()))]
    return [(name, [column.get(name) for column in columns]) for name in results.measures]


def _times(results: Results, trained: float | None) -> list[tuple[str, str]]:
    """What each stage took, as far as it is known."""
    arms = {**results.baselines, **{f"with {name}": arm for name, arm in results.perturbed.items()}}
    seconds = {"training": trained, "evaluation": results.run.get("wall_s")}
    seconds |= {f"evaluation, {name}": arm.run.get("wall_s") for name, arm in arms.items()}
    return [(stage, duration(value)) for stage, value in seconds.items() if value is not None]


def _outcomes(results: Results, seed: int) -> list[bool | None]:
    """What each baseline made of the same seed."""
    outcomes = []
    for _, baseline in sorted(results.baselines.items()):
        found = [episode.success for episode in baseline.episodes if episode.seed == seed]
        outcomes.append(found[0] if found else None)
    return outcomes


def _training(run: Path | None) -> dict[str, Any]:
    """The curves and the duration that `trainer_state.json` tells of."""
    nothing: dict[str, Any] = {"curves": [], "seconds": None}
    if run is None or not (run / "trainer_state.json").is_file():
        return nothing
    state = read_json(run / "trainer_state.json", DataError)
    log: list[Mapping[str, Any]] = state.get("log_history", [])

    def points(key: str, low: str | None = None, high: str | None = None) -> list[Point]:
        return [
            Point(entry["step"], entry[key], entry.get(low or ""), entry.get(high or ""))
            for entry in log
            if key in entry and "step" in entry
        ]

    curves = [
        ("Training loss", line_chart(points("loss"), "Training loss over steps")),
        ("Validation loss", line_chart(points("eval_loss"), "Validation loss over steps")),
        (
            "Success while training",
            line_chart(
                points("rollout_success_rate", "rollout_success_low", "rollout_success_high"),
                "Success rate with its 95 % interval over steps",
                percent=True,
            ),
        ),
    ]
    seconds = [entry["train_runtime"] for entry in log if "train_runtime" in entry]
    return {
        "curves": [(name, svg) for name, svg in curves if svg],
        "seconds": seconds[-1] if seconds else None,
    }
