"""A checkpoint is complete or absent, loads anywhere, and notices every change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from menura.checkpoint import MANIFEST_FILE, load_checkpoint
from menura.errors import CheckpointError

FILES = {
    "README.md",
    "config.json",
    "golden.safetensors",
    "look.py",
    "menura.json",
    "model.safetensors",
    "normalizer.safetensors",
    "processor_config.json",
}


def test_holds_everything_and_no_pickle(saved) -> None:
    assert {path.name for path in saved.directory.iterdir()} == FILES
    for path in saved.directory.iterdir():
        head = path.read_bytes()[:4]
        assert not head.startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), path
    manifest = json.loads((saved.directory / MANIFEST_FILE).read_text())
    assert set(manifest["files"]) == FILES - {MANIFEST_FILE}


def test_loads_equal(saved) -> None:
    checkpoint = load_checkpoint(saved.directory, project=saved.project)
    assert checkpoint.policy.training is False
    assert checkpoint.features == saved.processor.features
    assert checkpoint.processor.settings == saved.processor.settings
    for name, weight in saved.policy.state_dict().items():
        assert torch.equal(weight, checkpoint.policy.state_dict()[name])
