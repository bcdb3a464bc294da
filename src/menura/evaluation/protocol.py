"""The protocol: everything but the policy that shapes a success rate, and its fingerprint.

The same checkpoint scores 65 % or 82 % by the success rule alone, so a rate without its protocol says little. Two
results may be compared when their protocols are equal; the policy is therefore no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from menura.errors import DataError

_VERSION = 1  # of the meaning of the fields below


def build_protocol(
    environment: Mapping[str, Any], *, seeds: Sequence[int], stop_at_success: bool, execution: Mapping[str, Any]
) -> dict[str, Any]:
    """The protocol of one evaluation.

    Args:
        environment: what the environment says of itself (`SimEnv.protocol()`): name and versions, success rule, step
            limit, cameras and render mode, control.
        seeds: of each episode.
        execution: how predicted chunks are executed: `{"name": "open_loop"}`, say.
    """
    protocol = {
        "version": _VERSION,
        "environment": dict(environment),
        "episodes": len(seeds),
        "seeds": _describe_seeds(seeds),
        "success": "once",
        "stop_at_success": stop_at_success,
        "execution": dict(execution),
    }
    plain: dict[str, Any] = json.loads(canonical_json(protocol))  # tuples become lists, as when read from a file
    return plain


def _describe_seeds(seeds: Sequence[int]) -> dict[str, Any]:
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return {"first": seeds[0], "rule": "first + episode"}
    return {"list": list(seeds)}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"protocol: expected values that JSON can hold, got {error}. Mend the environment's protocol()."
        ) from error


def fingerprint(protocol: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON, as hex."""
    return hashlib.sha256(canonical_json(dict(protocol)).encode()).hexdigest()


def differing_fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """`environment.success_rule: 'coverage > 0.95' / 'coverage > 0.9'`, one line for each field that differs."""
    flat_a, flat_b = flatten(a), flatten(b)
    lines = []
    for key in sorted(flat_a.keys() | flat_b.keys()):
        mine, theirs = flat_a.get(key, _ABSENT), flat_b.get(key, _ABSENT)
        if mine != theirs:
            lines.append(f"{key}: {mine!r} / {theirs!r}")
    return lines


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys, in order: `environment.success_rule`."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat.update(flatten(item, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = item
    return flat
