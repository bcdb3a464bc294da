"""Two processes on the CPU, as torchrun starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).with_name("lab.py")

SCRIPT = """
import hashlib, importlib.util, json, os, pathlib, sys, torch
spec = importlib.util.spec_from_file_location("lab", sys.argv[1])
lab = importlib.util.module_from_spec(spec)
sys.modules["lab"] = lab
spec.loader.exec_module(lab)
torch.set_num_threads(1)
out, steps = pathlib.Path(sys.argv[2]), 8
trainer = lab.toy_trainer(out, 0.9, max_steps=steps, ddp_backend="gloo", eval_strategy="steps", eval_steps=4)
seen = [row for batch in trainer.get_train_dataloader() for row in batch["state"][:, 0].tolist()]
trainer.resume()
weights = b"".join(p.detach().numpy().tobytes() for p in trainer.model.parameters())
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
result = {"seen": seen, "weights": hashlib.sha256(weights).hexdigest(), "losses": losses}
pathlib.Path(f"{out}.{os.environ['RANK']}.json").write_text(json.dumps(result))
"""


def two_processes(directory: Path, out: Path) -> list[dict[str, object]]:
    script = directory / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    subprocess.run([*command, str(LAB), str(out)], check=True, capture_output=True, timeout=300)
    return [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_share_the_data_and_the_weights_and_resume(tmp_path: Path) -> None:
    whole = two_processes(tmp_path, tmp_path / "whole")
    assert not set(whole[0]["seen"]) & set(whole[1]["seen"]), "no sample twice"
    assert whole[0]["weights"] == whole[1]["weights"]
    assert {path.name for path in (tmp_path / "whole/checkpoint-6").iterdir()} >= {"process_0.json", "process_1.json"}
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (tmp_path / "whole/checkpoint-6").rename(resumed / "checkpoint-6")
    again = two_processes(tmp_path, resumed)
    assert [process["losses"] for process in again] == [process["losses"] for process in whole]
    assert [process["weights"] for process in again] == [process["weights"] for process in whole]
