"""Adapters on a base of 4 or 8 bits: QLoRA (Dettmers et al. 2023, arXiv 2305.14314), here on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from menura.checkpoint import merge_checkpoint
from menura.config import load_task
from menura.errors import CheckpointError, ConfigError
from menura.meta_policy import MetaPolicy
from menura.training.run import train

pytest.importorskip("peft")
LORA = {"type": "lora", "r": 4}


def words(options: dict[str, Any]) -> list[str]:
    return [f"--{key.replace('__', '.')}={json.dumps(value)}" for key, value in options.items()]


def trained(out: str, bits: dict[str, Any], **options: Any) -> dict[str, torch.Tensor]:
    given = {"training__quantization": bits, "training__peft": LORA, **options}
    train("reach", output_dir=out, overrides=words(given))
    return safetensors.torch.load_file(f"{out}/adapter_model.safetensors")


@pytest.mark.parametrize(
    "bits", [{"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, {"load_in_8bit": True}], ids=["4", "8"]
)
def test_a_quantized_base_with_adapters(
    project: Path, bits: dict[str, Any], train_in_child: Callable[..., int], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    whole = trained("whole", bits, training__max_steps=8, training__save_steps=4)
    assert all(value.abs().sum() > 0 for name, value in whole.items() if "lora_B" in name)
    base = safetensors.torch.load_file("whole/base/model.safetensors")
    assert base["net.0.weight"].dtype in (torch.uint8, torch.int8)
    assert "quantized" in Path("whole/README.md").read_text()
    meta = MetaPolicy.from_pretrained(Path("whole"), project=project)  # replays golden
    state = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
    assert np.isfinite(meta.predict({"state": state})).all()
    with pytest.raises(CheckpointError, match="expected a base in full precision to merge adapters into"):
        merge_checkpoint("whole", "merged", project=project)
    assert not Path("merged").exists()

    options = {
        "training__quantization": bits, "training__peft": LORA, "training__max_steps": 8, "training__save_steps": 4
    }  # fmt: skip
    place = {"directory": str(project), "cache": str(tmp_path / "cache")}
    assert train_in_child(**place, kill_at=6, task="reach", output_dir="killed", overrides=words(options)) == -9
    killed = trained("killed", bits, training__max_steps=8, training__save_steps=4)
    assert all(torch.equal(killed[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ("{quantization: 4bit}", "expected a mapping such as {load_in_4bit: true}, got '4bit'"),
        (
            "{quantization: {load_in_4bits: true}}",
            "load_in_4bits: no such field of transformers.BitsAndBytesConfig; did",
        ),
        ("{quantization: {load_in_4bit: 4}}", "load_in_4bit: expected true or false, got 4"),
        ("{quantization: {}}", "expected one of load_in_4bit and load_in_8bit to be true"),
        (
            "{quantization: {load_in_4bit: true}}",
            "expected training.peft beside it: weights of 4 or 8 bits do not learn, adapters on them do",
        ),
    ],
)
def test_refused_before_torch(project: Path, training: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task("reach", [f"--training={training}"])
    assert f"training.quantization: {message}" in str(caught.value)


def test_not_installed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import menura.config.finetuning as finetuning

    found = finetuning.module_file
    monkeypatch.setattr(
        finetuning, "module_file", lambda name, roots: None if name == "bitsandbytes" else found(name, roots)
    )
    with pytest.raises(ConfigError, match=r"Run `pip install 'menura\[bitsandbytes\]'`"):
        load_task("reach", ["--training.quantization={load_in_4bit: true}", "--training.peft={type: lora}"])
