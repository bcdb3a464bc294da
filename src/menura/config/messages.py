"""Pydantic's findings in our words: `<key>: expected <x>, got <y> (<file>:<line>)`."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from menura.config.origins import KeyPath, Problems, Tree, dotted
from menura.config.schema import TaskConfig
from menura.errors import nearest

# What each of pydantic's error types expected.
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a word",
    "string_too_short": "a word",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "path_type": "a path",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "too_short": "{min_length} items",
    "too_long": "{max_length} items",
    "literal_error": "{expected}",
}


def schema_problems(error: ValidationError, tree: Tree, problems: Problems) -> None:
    """Report each finding once, at the line of its key."""
    by_key: dict[KeyPath, list[Any]] = {}
    for finding in error.errors(include_url=False):
        by_key.setdefault(_path(finding["loc"]), []).append(finding)
    for path, findings in by_key.items():
        problems.add(dotted(path), _message(path, findings), tree.origin(path))


def _path(location: tuple[int | str, ...]) -> KeyPath:
    """The key's path; pydantic adds the branch of a union it tried, which is no key."""
    path: list[int | str] = []
    kind: Any = TaskConfig
    for part in location:
        options = _alternatives(kind)
        nested = [inner for option in options if (inner := _inner(option, part)) is not None]
        path.append(part)
        if not nested:
            break
        kind = nested[0]
    return tuple(path)


def _alternatives(kind: Any) -> list[Any]:
    """The members of a union, without the wrapping of Annotated."""
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [member for option in typing.get_args(kind) for member in _alternatives(option)]
    return [kind]


def _inner(kind: Any, part: int | str) -> Any:
    """The type of what lies under a key or index, or None when nothing can."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                return field.annotation
        return None
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (list, dict) and arguments:
        return arguments[-1]
    return None


def _message(path: KeyPath, findings: list[Any]) -> str:
    first = findings[0]
    if first["type"] == "extra_forbidden":
        near = nearest(str(path[-1]), _keys(path[:-1]))
        return "no such key" + (f"; did you mean {near}?" if near else f". Known here: {', '.join(_keys(path[:-1]))}")
    if first["type"] == "missing":
        return "required, but missing"
    expected = [_expected(finding) for finding in findings]
    message = f"expected {' or '.join(dict.fromkeys(expected))}, got {first['input']!r}"
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        near = nearest(first["input"], first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "))
        message += f"; did you mean {near}?" if near else ""
    return message


def _expected(finding: Any) -> str:
    template = _EXPECTED.get(finding["type"])
    return template.format(**finding.get("ctx", {})) if template is not None else str(finding["msg"])


def _keys(path: KeyPath) -> list[str]:
    """The keys known in the mapping at a path."""
    kind: Any = TaskConfig
    for part in path:
        kind = next(inner for option in _alternatives(kind) if (inner := _inner(option, part)) is not None)
    model = next(option for option in _alternatives(kind) if isinstance(option, type) and issubclass(option, BaseModel))
    return [field.alias or name for name, field in model.model_fields.items()]
