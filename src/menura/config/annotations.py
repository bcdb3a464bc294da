"""Whether a YAML value fits a parameter's annotation, or its default where there is no annotation."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "None": "null",
    "list": "a list",
    "dict": "a mapping",
}
_PLURALS = {"int": "whole numbers", "float": "numbers", "str": "words", "list": "lists", "dict": "mappings"}
_LISTS = ("list", "List", "tuple", "Tuple", "Sequence", "Iterable", "Collection", "set", "frozenset")
_MAPPINGS = ("dict", "Dict", "Mapping", "MutableMapping")
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "None": lambda value: value is None,
    "list": lambda value: isinstance(value, list),
    "dict": lambda value: isinstance(value, dict),
}


def expected_by_annotation(annotation: str, value: Any) -> str | None:
    """What the annotation allows, in words, when the value is nothing of it; None when it fits or nobody can tell."""
    try:
        tree = ast.parse(annotation, mode="eval").body
    except SyntaxError:
        return None
    options = _options(tree)
    if options is None or any(_fits(option, value) for option in options):
        return None
    return " or ".join(dict.fromkeys(_worded(option) for option in options))


def expected_by_default(default: Any, value: Any) -> str | None:
    """As `expected_by_annotation`, from the default's type. A whole number may stand for any number, null for all."""
    if value is None or default is None:
        return None
    if isinstance(default, bool):
        name = "bool"
    elif isinstance(default, (int, float)):
        name = "float"
    elif isinstance(default, (list, tuple)):
        name = "list"
    elif isinstance(default, (str, dict)):
        name = type(default).__name__
    else:
        return None
    return None if _CHECKS[name](value) else _WORDS[name]


def _options(node: ast.expr) -> list[ast.expr] | None:
    """The members of a union; None when one of them is a type that a YAML value cannot be compared with."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        members = [_options(node.left), _options(node.right)]
    elif isinstance(node, ast.Subscript) and _name(node.value) in ("Optional", "Union"):
        members = [_options(item) for item in _items(node)]
        if _name(node.value) == "Optional":
            members.append([ast.Constant(None)])
    else:
        return [node] if _known(node) else None
    return None if None in members else [option for member in members if member is not None for option in member]


def _known(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is None
    base = _name(node.value) if isinstance(node, ast.Subscript) else _name(node)
    if base == "Literal":
        return isinstance(node, ast.Subscript)
    return base in _CHECKS or base in _LISTS or base in _MAPPINGS


def _name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def _fits(node: ast.expr, value: Any) -> bool:
    if isinstance(node, ast.Constant):
        return value is None
    if not isinstance(node, ast.Subscript):
        return _CHECKS[_kind(_name(node))](value)
    base = _name(node.value)
    if base == "Literal":
        return any(value == choice and type(value) is type(choice) for choice in _choices(node))
    if not _CHECKS[_kind(base)](value):
        return False
    if _kind(base) != "list":
        return True
    items = _items(node)
    item_options = _options(items[0])
    every_item_alike = all(ast.unparse(item) in (ast.unparse(items[0]), "...") for item in items)
    if item_options is None or not every_item_alike:
        return True
    return all(any(_fits(option, item) for option in item_options) for item in value)


def _items(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _kind(name: str) -> str:
    if name in _LISTS:
        return "list"
    return "dict" if name in _MAPPINGS else name


def _choices(node: ast.Subscript) -> list[Any]:
    return [item.value for item in _items(node) if isinstance(item, ast.Constant)]


def _worded(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return "null"
    if not isinstance(node, ast.Subscript):
        return _WORDS[_kind(_name(node))]
    if _name(node.value) == "Literal":
        return " or ".join(repr(choice) for choice in _choices(node))
    kind = _kind(_name(node.value))
    plural = _PLURALS.get(_kind(_name(_items(node)[0])))
    return f"{_WORDS[kind]} of {plural}" if kind == "list" and plural is not None else _WORDS[kind]
