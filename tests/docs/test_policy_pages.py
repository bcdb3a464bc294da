"""The table of `docs/policies/index.md`: every section of a policy, what it sees, and how many parameters it has."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import menura
from menura.components import BUILT_IN
from menura.features import CameraFeature, Features, VectorFeature
from menura.policies.contract import Contract, fill_config
from menura.policies.needs import config_parameters

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies" / "index.md"
SECTIONS = Path(menura.__file__).parent / "configs" / "policy"
#: What a section names to be fetched; the sizes are those of the configs that stand for it.
FETCHED = ("pretrained_backbone", "pretrained", "pretrained_text", "pretrained_vision", "text_encoder")
SEES = {"state": {"state"}, "cameras": {"image"}, "features": {"image_feature_dim"}, "language": {"task"}}
#: No network: nothing is counted, and they share a row.
AUDITS = {"replay", "random", "zero"}


def table() -> dict[str, list[str]]:
    """Section -> the cells after it, of rows such as | [`act`](act.md) | … |."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("| section | class"))
    found: dict[str, list[str]] = {}
    for line in lines[head + 2 :]:
        if not line.startswith("|"):
            break
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        found |= dict.fromkeys(re.findall(r"`(\w+)`", first), cells)
    return found


def section(name: str) -> tuple[type[Any], dict[str, Any]]:
    spec = yaml.safe_load((SECTIONS / f"{name}.yaml").read_text(encoding="utf-8"))
    module, _, cls = BUILT_IN["policy"][spec["class"]].partition(":")
    return getattr(importlib.import_module(module), cls), spec.get("args") or {}


def test_every_section() -> None:
    assert set(table()) == {path.stem for path in SECTIONS.glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(set(table()) - AUDITS))
def test_what_the_table_says(name: str) -> None:
    cls, args = section(name)
    printed_class, _, sees, size, _ = table()[name]
    assert printed_class == f"`{cls.__name__}`"

    known = config_parameters(cls.config_class)
    small = name.endswith("_state")
    cameras = {"front": CameraFeature(240, 320)} if "camera_names" in known and not small else {}
    features = Features(VectorFeature.of_width(14, "s"), VectorFeature.of_width(7, "a"), cameras, 10.0, language=True)
    own = {key: value for key, value in args.items() if key not in FETCHED}
    config = fill_config(cls.config_class, own, features)
    with torch.device("meta"):
        policy = cls(config)
    count = sum(p.numel() for p in policy.parameters())
    frozen = sum(p.numel() for p in policy.parameters() if not p.requires_grad)
    millions = [count / 1e6] + ([frozen / 1e6] if frozen else [])
    assert re.findall(r"[\d.]+", size) == [f"{number:.1f}" for number in millions]

    takes = {*Contract.of(cls).keys} | ({"image_feature_dim"} & set(known))
    if small:  # the same class, from states alone
        assert sees == "state"
    else:
        said = set().union(*(SEES[word] for word in re.findall(r"\b(state|cameras|features|language)\b", sees)))
        assert said == takes & set().union(*SEES.values())
