"""The guide's listing as printed and mended differ in its three faults and in nothing else."""

from __future__ import annotations

from pathlib import Path

GUIDE = Path(__file__).parents[1] / "guide"


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
