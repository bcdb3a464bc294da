"""Pydantic's findings in our words: `<key>: expected <x>, got <y> (<file>:<line>)`."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import ValidationError

from menura.config.origins import KeyPath, Problems, Tree, dotted
from menura.config.schema import Section, TaskConfig
from menura.config.yaml_tree import told
from menura.errors import did_you_mean

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
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "too_short": "{min_length} items",
    "too_long": "{max_length} items",
    "literal_error": "{expected}",
}


def schema_problems(
    error: ValidationError,
    tree: Tree,
    problems: Problems,
    model: type[Section] = TaskConfig,
    prefix: KeyPath = (),
) -> None:
    """Report each finding once, at the line of its key. `model` was validated against what lies at `prefix`."""
    by_key: dict[KeyPath, list[Any]] = {}
    for finding in error.errors(include_url=False):
        by_key.setdefault(_path(model, finding["loc"]), []).append(finding)
    for path, findings in by_key.items():
        if any(other[: len(path)] == path for other in by_key if other != path):
            continue  # one branch of a union; another fits so far, and says what is wrong inside
        whole = prefix + path
        if findings[0]["type"] == "missing" and whole in tree.origins:
            continue  # it was given, but could not be read, which has been reported
        problems.add(dotted(whole), _message(model, path, findings), tree.origin(whole))


def _path(model: type[Section], location: tuple[int | str, ...]) -> KeyPath:
    """The key's path; pydantic adds the branch of a union it tried, which is no key."""
    path: list[int | str] = []
    kind: Any = model
    for part in location:
        branches = {_label(option): option for option in _alternatives(kind) if option is not type(None)}
        if len(branches) > 1 and part in branches:
            kind = branches[str(part)]
            continue
        nested = [inner for option in _alternatives(kind) if (inner := _inner(option, part)) is not None]
        if not nested and path and not _has_keys(kind):
            break
        path.append(part)
        if not nested:
            break
        kind = nested[0]
    return tuple(path)


def _label(kind: Any) -> str:
    """What pydantic calls a branch of a union."""
    plain = typing.get_origin(kind) is None  # in Python 3.10 `list[str]` passes for a type
    return kind.__name__ if plain and isinstance(kind, type) else str(kind).replace(", ", ",")


def _has_keys(kind: Any) -> bool:
    return any(_is_section(option) for option in _alternatives(kind))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _alternatives(kind: Any) -> list[Any]:
    """The members of a union, without the wrapping of Annotated."""
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [member for option in typing.get_args(kind) for member in _alternatives(option)]
    return [kind]


def _inner(kind: Any, part: int | str) -> Any:
    """The type of what lies under a key or index, or None when nothing can."""
    if _is_section(kind):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                return field.annotation
        return None
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (list, dict) and arguments:
        return arguments[-1]
    return None


def _message(model: type[Section], path: KeyPath, findings: list[Any]) -> str:
    first = findings[0]
    if first["type"] == "extra_forbidden":
        keys = _keys(model, path[:-1])
        return "no such key" + (did_you_mean(str(path[-1]), keys) or f". Known here: {', '.join(keys)}")
    if first["type"] == "missing":
        return "required, but missing"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])  # of a validator of the schema's own
    expected = [_expected(finding) for finding in findings]
    message = f"expected {' or '.join(dict.fromkeys(expected))}, got {told(first['input'])}"
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        choices = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        message += did_you_mean(first["input"], choices)
    return message


def _expected(finding: Any) -> str:
    template = _EXPECTED.get(finding["type"])
    return template.format(**finding.get("ctx", {})) if template is not None else str(finding["msg"])


def _keys(model: type[Section], path: KeyPath) -> list[str]:
    """The keys known in the mapping at a path."""
    kind: Any = model
    for part in path:
        kind = next(inner for option in _alternatives(kind) if (inner := _inner(option, part)) is not None)
    section = next(option for option in _alternatives(kind) if _is_section(option))
    return [field.alias or name for name, field in section.model_fields.items()]
