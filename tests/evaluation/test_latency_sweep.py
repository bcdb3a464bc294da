"""Success over latency: what is written, and what is taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from menura.errors import ConfigError
from menura.evaluation.charts import Point, rates_chart
from menura.evaluation.latency_sweep import latency_sweep, show
from menura.evaluation.results import Results

OPTIONS: dict[str, Any] = {"episodes": 4, "seed": 100, "num_envs": 2, "num_workers": 1, "progress": False}


def test_each_controller_at_each_latency(toy_meta: Any, toy_env: Any, tmp_path: Path) -> None:
    sweep = latency_sweep(
        toy_meta, toy_env(), latencies_ms=[100, 0], controllers=["newest", "delay_compensated"],
        output_dir=tmp_path, command="menura eval …", **OPTIONS,
    )  # fmt: skip
    assert sweep.latencies_ms == (0, 100)
    told = json.loads((tmp_path / "latency.json").read_text())
    assert told["control_hz"] == 20
    for name in ("newest", "delay_compensated"):
        for entry in told["controllers"][name]:
            kept = Results.load(tmp_path / name / f"{entry['latency_ms']:g}ms")
            assert kept.success_rate == entry["success_rate"]
            assert kept.measures["delay_s"] == pytest.approx(entry["latency_ms"] / 1000)
            assert kept.protocol["execution"]["controller"] == name
            assert entry["interval"] == list(kept.interval)
    page = (tmp_path / "report.html").read_text()
    assert "menura eval …" in page
    assert "<svg" in page
    assert "100 ms" in page
    picture = ElementTree.parse(tmp_path / "latency.svg")
    assert [t.text for t in picture.iter("{http://www.w3.org/2000/svg}text")][-2:] == ["newest", "delay_compensated"]
    table = show(sweep).splitlines()
    assert table[0].split() == ["controller", "0", "ms", "100", "ms"]
    assert table[1].startswith("newest ")

    before = (tmp_path / "newest/0ms/results.json").stat().st_mtime_ns
    again = latency_sweep(
        toy_meta, toy_env(), latencies_ms=[0, 100, 200], controllers=["newest"], output_dir=tmp_path, resume=True,
        **OPTIONS,
    )  # fmt: skip
    assert again.results["newest"][0].episodes == sweep.results["newest"][0].episodes
    assert before <= (tmp_path / "newest/0ms/results.json").stat().st_mtime_ns
    assert set(again.results["newest"]) == {0, 100, 200}


def test_controllers_are_changed_as_on_the_command_line(toy_meta: Any, toy_env: Any, tmp_path: Path) -> None:
    asked = {"latencies_ms": [50], "overrides": ["--controller.args.kind", "cubic"], **OPTIONS}
    sweep = latency_sweep(
        toy_meta, toy_env(), controllers=["interpolating", "real_time_chunking"], output_dir=tmp_path, **asked
    )
    for name in ("interpolating", "real_time_chunking"):
        assert sweep.results[name][50].protocol["execution"]["controller_args"]["kind"] == "cubic"
    with pytest.raises(ConfigError, match="kind: no such argument of Newest"):
        latency_sweep(toy_meta, toy_env(), controllers=["newest"], output_dir=tmp_path, **asked)


def test_wrong_latencies_are_refused(toy_meta: Any, toy_env: Any) -> None:
    for wrong in ([], [10, -1]):
        with pytest.raises(ConfigError, match="latency_sweep: expected milliseconds of at least 0"):
            latency_sweep(toy_meta, toy_env(), latencies_ms=wrong, **OPTIONS)


def test_the_picture_has_all_curves_and_intervals() -> None:
    curves = {f"<{n}>": [Point(ms, 0.5, 0.4, 0.6) for ms in (0, 50)] for n in range(7)}
    picture = ElementTree.fromstring(rates_chart(curves, "what it shows", "ms"))
    name = "{http://www.w3.org/2000/svg}"
    assert len(list(picture.iter(f"{name}polyline"))) == 7
    assert len(list(picture.iter(f"{name}circle"))) == 14
    assert picture.get("aria-label") == "what it shows"
    assert ElementTree.fromstring(rates_chart({"one": [Point(5, 1.0)]}, "one point", "ms")) is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--latency", "1ms", "--latency_sweep", "0,1"], "got both"),
        (["--controller", "newest"], "expected --latency or --latency_sweep beside it"),
        (["--control_hz", "50"], "expected --latency or --latency_sweep beside it"),
        (["--latency", "1ms", "--controller", "newest,oldest_first"], "expected one with --latency"),
        (["--latency", "1ms", "--controller.args.kind", "cubic"], "expected the controller that is meant beside it"),
        (["--latency_sweep", "0,fast"], "expected milliseconds such as 0,50,100"),
        (["--latency_sweep", "0", "--baselines"], "a sweep of one task without"),
        (["--latency", "12"], "expected ms or s, got 12 without a unit"),
    ],
)
def test_options_that_do_not_go_together(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from menura.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["menura", "eval", "-m", "nowhere", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert message in " ".join((told.out + told.err).split())
