"""Values changed by their path: `--policy.args.hidden_size 512`, `--datasets.0.args.root=data/x`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import yaml

from menura.config.origins import KeyPath, Origin, Problems, Tree, dotted
from menura.config.yaml_tree import parse_value, told
from menura.errors import did_you_mean

COMMAND_LINE = Origin("command line")


@dataclass(frozen=True)
class Override:
    """One changed value. `names_section`: it must be known before sections are put in their places."""

    path: tuple[str, ...]
    value: Any

    @property
    def names_section(self) -> bool:
        return len(self.path) == 1 or self.path[-1] == "base"


def parse_overrides(words: Sequence[str], problems: Problems) -> list[Override]:
    """Read `--a.b value`, `--a.b=value` and `a.b=value`; each value is YAML."""
    overrides = []
    for name, text in _pairs(words):
        if text is None:
            problems.add(name, "expected a value: --a.b value, or a.b=value", COMMAND_LINE)
            continue
        path = tuple(name.split("."))
        if not all(path):
            problems.add(name, "expected a path of keys such as policy.args.hidden_size", COMMAND_LINE)
            continue
        try:
            overrides.append(Override(path, parse_value(text)))
        except (yaml.YAMLError, ValueError):
            problems.add(name, f"expected a YAML value, got {text!r}", COMMAND_LINE)
    return overrides


def split_section(words: Sequence[str], section: str) -> tuple[list[str], list[str]]:
    """The overrides of a section and the others, each one word `a.b=value`; one without a value keeps to its name."""
    joined = [name if text is None else f"{name}={text}" for name, text in _pairs(words)]
    mine = [word for word in joined if word.startswith(f"{section}.")]
    return mine, [word for word in joined if word not in mine]


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(path, value) of each override; None where no value follows."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if equals:
            yield name, text
        elif word.startswith("--") and rest and not _is_option(rest[0]):
            yield name, rest.pop(0)
        else:
            yield name, None


def _is_option(word: str) -> bool:
    return word.startswith("--") and word[2:3].isalpha()


def apply(tree: Tree, override: Override, problems: Problems) -> None:
    """Put one value in its place. Missing mappings on the way are made; list items must exist."""
    place: Any = tree.value
    path: KeyPath = ()
    for part, following in pairwise(override.path):
        key = _step(place, path, part, problems)
        if key is None:
            return
        path = (*path, key)
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = [] if following.isdecimal() else {}
            tree.origins[path] = COMMAND_LINE
        place = place[key]
    last = _step(place, path, override.path[-1], problems)
    if last is None:
        return
    place[last] = override.value
    path = (*path, last)
    tree.forget(path)
    tree.origins[path] = COMMAND_LINE


def _step(place: Any, path: KeyPath, part: str, problems: Problems) -> str | int | None:
    """The key or index that `part` means in `place`, or None after reporting why there is none."""
    here = dotted((*path, part))
    if isinstance(place, dict):
        if part in place:
            return part
        return part.replace("-", "_")
    if isinstance(place, list):
        if not part.isdecimal():
            near = did_you_mean(part, map(str, range(len(place))))
            problems.add(here, f"expected the number of a list item, got {part!r}{near}", COMMAND_LINE)
        elif int(part) >= len(place):
            count = "the list is empty" if not place else f"the last one is {len(place) - 1}"
            problems.add(here, f"no such list item; {count}", COMMAND_LINE)
        else:
            return int(part)
        return None
    problems.add(here, f"{dotted(path)} is {told(place)}, which has no keys", COMMAND_LINE)
    return None
