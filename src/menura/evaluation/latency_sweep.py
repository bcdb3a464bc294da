"""Success over latency, of each controller: the same policy, the same seeds, answers that take longer and longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import menura
from menura.config import split_section
from menura.errors import ConfigError
from menura.evaluation.charts import Point, rates_chart
from menura.evaluation.evaluate import REPORT_FILE, evaluate
from menura.evaluation.latency_execution import CONTROLLERS, DelayedExecution
from menura.evaluation.latency_model import LatencyModel
from menura.evaluation.page import render, text_of
from menura.evaluation.progress import EpisodeTable
from menura.evaluation.protocol import flatten
from menura.evaluation.request import Env, Request, default_output_dir
from menura.evaluation.results import Results
from menura.evaluation.shared import Shared
from menura.files import write_json, write_text

if TYPE_CHECKING:
    from menura.meta_policy import MetaPolicy

JSON_FILE, CHART_FILE = "latency.json", "latency.svg"


@dataclass(frozen=True)
class LatencySweep:
    """What was found.

    Attributes:
        latencies_ms: in order.
        results: controller -> latency in ms -> its results, as far as they are there.
    """

    latencies_ms: tuple[float, ...]
    results: Mapping[str, dict[float, Results]] = field(default_factory=dict)

    @property
    def any_results(self) -> Results:
        return next(of_latency for of in self.results.values() for of_latency in of.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: of each controller a list, one entry a latency."""
        return {
            "format": 1,
            "policy": dict(self.any_results.policy),
            "control_hz": self.any_results.protocol["execution"]["control_hz"],
            "controllers": {
                name: [_entry(latency_ms, results) for latency_ms, results in of.items()]
                for name, of in self.results.items()
            },
        }

    def chart(self) -> str:
        """The picture, as SVG."""
        curves = {
            name: [Point(ms, of_ms.success_rate or 0.0, *of_ms.interval) for ms, of_ms in of.items()]
            for name, of in self.results.items()
        }
        return rates_chart(curves, "Success rate over latency, of each controller", "latency of an answer (ms)")


def latency_sweep(
    model: str | Path | MetaPolicy,
    env: Env = None,
    *,
    latencies_ms: Sequence[float],
    controllers: Sequence[str] = CONTROLLERS,
    control_hz: float | None = None,
    output_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    project: Path | None = None,
    progress: bool = True,
    command: str | None = None,
    **settings: Any,
) -> LatencySweep:
    """Evaluates with each controller at each latency, in the same processes, the policy loaded once.

    Writes `<output_dir>/<controller>/<latency>ms/results.json` of each, and `latency.json`, `latency.svg` and
    `report.html` of all, which are up to date after each. With `resume`, what is finished is not run again.

    Args:
        model, env, project, progress, settings: see `menura.evaluate`; nothing is filmed unless `videos`.
        latencies_ms: milliseconds, each at least 0.
        controllers: by their names; all of Menura's by default.
        control_hz: rate of commands; the environment's by default.
        output_dir: by default `<run>/evaluation-latency_sweep`.
        overrides: as of `menura.evaluate`; those of `controller` are of every controller.
        command: what repeats this, for the report.

    Raises:
        ConfigError: no latency, a negative one, or a controller that is not there. The others: see `menura.evaluate`.
    """
    if not latencies_ms or min(latencies_ms) < 0:
        raise ConfigError(f"latency_sweep: expected milliseconds of at least 0, got {list(latencies_ms)}.")
    of_controller, overrides = split_section(overrides, "controller")
    asked = Request.of(model, env, overrides, project)
    directory = Path(output_dir) if output_dir is not None else default_output_dir(model, env, suffix="latency_sweep")
    executions = {
        (name, ms): DelayedExecution(LatencyModel.constant(ms / 1000), name, control_hz, asked.project, of_controller)
        for name in dict.fromkeys(controllers)
        for ms in sorted(set(latencies_ms))
    }
    sweep = LatencySweep(tuple(sorted(set(latencies_ms))), {name: {} for name in dict.fromkeys(controllers)})
    with Shared(EpisodeTable(progress)) as shared:
        shared.table.announce(_title(*cell) for cell in executions)
        for (name, ms), execution in executions.items():
            shared.title = _title(name, ms)
            sweep.results[name][ms] = evaluate(
                model,
                env,
                execution=execution,
                output_dir=directory / name / f"{ms:g}ms" if directory is not None else None,
                overrides=overrides,
                project=project,
                shared=shared,
                **{"videos": 0, **settings},
            )
            if directory is not None:
                _write(directory, sweep, asked, command)
    return sweep


def show(sweep: LatencySweep) -> str:
    """A table: one line a controller, success rates with their intervals."""
    header = ["controller", *(f"{ms:g} ms" for ms in sweep.latencies_ms)]
    lines = [header, *([name, *(_told(of[ms]) for ms in sorted(of))] for name, of in sweep.results.items())]
    widths = [max(len(line[column]) for line in lines if column < len(line)) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines
    )


def _told(results: Results) -> str:
    low, high = results.interval
    return f"{results.success_rate or 0:.0%} [{low:.0%}, {high:.0%}]"


def _title(name: str, latency_ms: float) -> str:
    return f"{name}, {latency_ms:g} ms"


def _entry(latency_ms: float, results: Results) -> dict[str, Any]:
    return {
        "latency_ms": latency_ms,
        "success_rate": results.success_rate,
        "interval": list(results.interval),
        "successes": results.successes,
        "episodes": len(results.episodes),
        "measures": results.measures,
        "fingerprint": results.fingerprint,
    }


def _write(directory: Path, sweep: LatencySweep, asked: Request, command: str | None) -> None:
    """What is known so far."""
    chart, first = sweep.chart(), sweep.any_results
    write_json(directory / JSON_FILE, sweep.to_dict())
    write_text(directory / CHART_FILE, chart)
    protocol = {key: value for key, value in flatten(first.protocol).items() if not key.startswith("execution.")}
    page = render(
        "latency.html.jinja",
        title=f"{asked.task.name if asked.task is not None else first.policy['name']}: success over latency",
        chart=chart,
        latencies=sweep.latencies_ms,
        controllers=[(name, [of.get(ms) for ms in sweep.latencies_ms]) for name, of in sweep.results.items()],
        control_hz=first.protocol["execution"]["control_hz"],
        protocol=[(key, text_of(value)) for key, value in protocol.items()],
        policy=[(key, text_of(value)) for key, value in {**first.policy, **first.run}.items()],
        command=command,
        version=menura.__version__,
    )
    write_text(directory / REPORT_FILE, page)
