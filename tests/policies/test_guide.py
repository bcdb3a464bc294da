"""The guide's listing is the guide's, and mended differs in its three faults and in nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "guide"
PRINTED = Path(__file__).parents[3] / "shared" / "custom_policies_guide.md"


@pytest.mark.skipif(not PRINTED.is_file(), reason="the guide itself is not beside this checkout")
def test_the_listing_is_the_guides():
    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    blocks = re.findall(r"```(python|yaml)\n(.*?)```", PRINTED.read_text(encoding="utf-8"), re.DOTALL)
    code = "".join(block for language, block in blocks if language == "python")
    (task,) = (block for language, block in blocks if language == "yaml")
    assert lines((GUIDE / "as_printed/policy/my_cool_policy.py").read_text()) == lines(code)
    for folder in ("as_printed", "mended"):
        assert lines((GUIDE / folder / "configs/task/your_task.yaml").read_text()) == lines(task)


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
