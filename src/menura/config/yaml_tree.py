"""YAML with the line of every key.

Scalars follow YAML 1.2's core schema rather than PyYAML's 1.1: `1e-3` is a number, `no` and `on` are words.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from menura.config.origins import KeyPath, Origin, OriginKind, Problems, Tree, dotted

_SCALARS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the strings that `_Loader` would not read back as strings."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))
_MERGE = "tag:yaml.org,2002:merge"
_Loader.add_implicit_resolver(_MERGE, re.compile(r"^(?:<<)$"), ["<"])


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = node.value.lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def parse_value(text: str) -> Any:
    """One YAML value, such as an override's; `yaml.YAMLError` when it is none."""
    return yaml.load(text, Loader=_Loader)


def format_value(value: Any) -> str:
    """A value as one line of YAML, which `parse_value` reads back equal."""
    options: dict[str, Any] = {"Dumper": _Dumper, "width": float("inf"), "allow_unicode": True, "sort_keys": False}
    text: str = yaml.dump(value, default_flow_style=True, **options).removesuffix("...\n").rstrip("\n")
    if any(mark in text for mark in "\n\x85\u2028\u2029"):  # double quotes write a line break within one line
        text = yaml.dump(value, default_flow_style=True, default_style='"', **options | {"allow_unicode": False})
    return text.rstrip("\n")


def told(value: Any) -> str:
    """A value as messages quote it: words in quotes, all else as YAML writes it."""
    return repr(value) if isinstance(value, str) else format_value(value)


def read_yaml(file: Path, kind: OriginKind, problems: Problems) -> Tree | None:
    """Read a file whose top level is a mapping; what is wrong goes into `problems`.

    Returns:
        The values with their lines, or None when the file holds no mapping.
    """
    here = Origin(kind, file)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        problems.add("", f"YAML: expected UTF-8 text, got byte 0x{error.object[error.start]:02x}", here)
        return None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        problems.add("", _syntax_message(error, text, line), Origin(kind, file, line))
        return None
    except yaml.reader.ReaderError as error:
        problems.add("", f"YAML: expected printable text, got the character #x{ord(error.character):04x}", here)
        return None
    if node is None:
        problems.add("", "YAML: expected a mapping, got an empty file", here)
        return None
    if not isinstance(node, yaml.MappingNode):
        got = "a list" if isinstance(node, yaml.SequenceNode) else f"{node.value!r}"
        problems.add("", f"YAML: expected a mapping at the top level, got {got}", Origin(kind, file, _line(node)))
        return None
    walk = _Walk(file, kind, problems)
    value = walk.mapping(node, ())
    return Tree(value, walk.origins)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_message(error: yaml.MarkedYAMLError, text: str, line: int | None) -> str:
    lines = text.splitlines()
    if line is not None and line <= len(lines) and "\t" in lines[line - 1]:
        return "YAML: expected spaces, got a tab. Indent with spaces"
    return f"YAML: {error.problem}"


class _Walk:
    """Turns composed nodes into plain values, noting where each key stands."""

    def __init__(self, file: Path, kind: OriginKind, problems: Problems) -> None:
        self.origins: dict[KeyPath, Origin] = {(): Origin(kind, file)}
        self._file = file
        self._kind: OriginKind = kind
        self._problems = problems
        self._open: set[int] = set()  # nodes being read: an alias to one of them never ends
        self._scalars = _Loader("")

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        merged_first = sorted(node.value, key=lambda pair: pair[0].tag != _MERGE)
        for key_node, value_node in merged_first:
            origin = Origin(self._kind, self._file, _line(key_node))
            if key_node.tag == _MERGE:
                self._merge_key(value_node, path, result, origin)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.add(dotted(path) or "YAML", "expected a word as key, got a list or mapping", origin)
                continue
            key = key_node.value
            if key in first_lines:
                message = f"key is given twice, first in line {first_lines[key]}. Keep one"
                self._problems.add(dotted((*path, key)), message, origin)
                continue
            first_lines[key] = _line(key_node)
            here = (*path, key)
            self.origins[here] = origin
            result[key] = self._value(value_node, here, origin)
        return result

    def _merge_key(self, node: yaml.Node, path: KeyPath, result: dict[str, Any], origin: Origin) -> None:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self._problems.add(dotted((*path, "<<")), "expected a mapping to merge", origin)
                continue
            for key, value in self.mapping(source, path).items():
                result.setdefault(key, value)  # of several mappings the first wins

    def _value(self, node: yaml.Node, path: KeyPath, origin: Origin) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, origin)
        if id(node) in self._open:
            self._problems.add(dotted(path), "the alias contains itself", origin)
            return None
        self._open.add(id(node))
        value: Any = None
        if isinstance(node, yaml.MappingNode):
            value = self.mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            value = []
            for index, item in enumerate(node.value):
                here = (*path, index)
                self.origins[here] = Origin(self._kind, self._file, _line(item))
                value.append(self._value(item, here, self.origins[here]))
        self._open.remove(id(node))
        return value

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath, origin: Origin) -> Any:
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._problems.add(dotted(path), f"expected a plain value, got the tag {node.tag!r}", origin)
            return None
