"""What a command costs before it does anything.

Prints one JSON line: CPU seconds (user and system, the median) of `menura --help` and of `menura train` that refuses a
wrong YAML; `ratio` is the former over starting the bare interpreter in the same run.

    python benchmarks/cli.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WRONG = "policy: {class: MLPPolicy, args: {hiden_size: 8}}\ndatasets: [data/none]\n"


def cpu_seconds(command: list[str], cwd: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=cwd, capture_output=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    menura = [sys.executable, "-m", "menura"]
    commands = {
        "bare": [sys.executable, "-c", "pass"],
        "help": [*menura, "--help"],
        "wrong_yaml": [*menura, "train", "wrong"],
    }
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory)
        (project / "configs" / "task").mkdir(parents=True)
        (project / "configs" / "task" / "wrong.yaml").write_text(WRONG)
        seconds = {
            name: statistics.median(cpu_seconds(command, project) for _ in range(rounds))
            for name, command in commands.items()
        }
    print(
        json.dumps(
            {
                "benchmark": "cli",
                "ratio": round(seconds["help"] / seconds["bare"], 2),
                "help_cpu_s": round(seconds["help"], 3),
                "help_target_s": 0.3,
                "wrong_yaml_cpu_s": round(seconds["wrong_yaml"], 3),
                "wrong_yaml_target_s": 1.0,
                "bare_cpu_s": round(seconds["bare"], 3),
            }
        )
    )


if __name__ == "__main__":
    run()
