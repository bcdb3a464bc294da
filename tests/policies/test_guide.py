"""The guide's policy, mended, is an ordinary model of transformers: it needs Menura for nothing once it is saved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from menura.policies.contract import build_policy

GUIDE = Path(__file__).parents[1] / "guide"

LOAD_WITHOUT_MENURA = """
import sys
sys.modules["menura"] = None  # any import of it fails
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
policy = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
assert type(policy).__name__ == "MyCoolPolicy"
with torch.no_grad():
    actions = policy.select_action(load_file(sys.argv[1] + "/obs.safetensors"))
save_file({"actions": actions}, sys.argv[1] + "/answer.safetensors")
"""


def test_only_the_three_faults_are_mended():
    printed = (GUIDE / "as_printed/policy/my_cool_policy.py").read_text().splitlines()
    mended = (GUIDE / "mended/policy/my_cool_policy.py").read_text().splitlines()
    assert [line for line in printed if line not in mended] == [line for line in printed if "] * config" in line]
    added = [line.strip() for line in mended if line not in printed]
    assert added == [
        "import torch",
        "mlp_layers = [nn.Linear(config.hidden_size * 2, config.hidden_size), nn.ReLU()]",
        "for _ in range(config.num_layers - 1):",
        "mlp_layers += [nn.Linear(config.hidden_size, config.hidden_size), nn.ReLU()]",
        "self.post_init()",
    ]


def test_mended_it_loads_in_a_fresh_process_without_menura(guide_policy, features, tmp_path):
    policy = build_policy(guide_policy, {"hidden_size": 16}, features, image_encoder_dim=4).eval()
    guide_policy.config_class.register_for_auto_class()
    guide_policy.register_for_auto_class("AutoModel")
    policy.save_pretrained(tmp_path / "saved")
    obs = {"image": torch.randn(2, 8), "state": torch.randn(2, 5)}
    save_file(obs, tmp_path / "saved/obs.safetensors")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD_WITHOUT_MENURA, str(tmp_path / "saved")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = load_file(tmp_path / "saved/answer.safetensors")["actions"]
    assert torch.equal(answer, policy.select_action(obs))
