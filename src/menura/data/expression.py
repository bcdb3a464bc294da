"""Expressions in a YAML: comparisons and arithmetic over named values. Read by `ast`, never evaluated by Python.

    length > 50 and task == "pick"        speed > 0.01 or state.gripper < 0.5        index not in [3, 7]

Names may have dots; `state["left arm"]` names what no identifier can. Over columns (arrays) everything is elementwise.
"""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from menura.errors import MenuraError, did_you_mean

Value = Any  # a number, a text, true, false, None, a list of them, or a numpy column

_ARITHMETIC: Mapping[type[ast.AST], Callable[[Value, Value], Value]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Mapping[type[ast.AST], Callable[[Value, Value], Value]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class ExpressionError(MenuraError):
    """An expression cannot be read, or not be evaluated over what it was given."""


@dataclass(frozen=True)
class Expression:
    """An expression, read and checked.

    Attributes:
        text: as it was written.
        names: the names it asks for, each once, in order.
    """

    text: str
    names: tuple[str, ...]
    _tree: ast.expr

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Read an expression.

        Allowed are names, numbers, texts, `True`, `False`, `None`, lists, `and`, `or`, `not`, comparisons, `in`,
        `+ - * / // %`, and the functions `abs`, `sqrt`, `min`, `max` (of two or more), `lower` (of a text).

        Raises:
            ExpressionError: it does not parse, or holds anything else.
        """
        try:
            tree = ast.parse(text.strip(), mode="eval").body
            names = dict.fromkeys(_names(tree))
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ExpressionError(f"expected an expression, got {text!r}: {error}.") from error
        return cls(text, tuple(names), tree)

    def require(self, known: Mapping[str, Value] | list[str]) -> None:
        """ExpressionError, with the nearest name, for a name that is not among these."""
        for name in self.names:
            if name not in known:
                # Of a robot there are dozens: they are listed where none is near.
                near = did_you_mean(name, known) or f". Known are {', '.join(known)}."
                raise ExpressionError(f"{self.text!r}: no such name: {name!r}{near}")

    def evaluate(self, values: Mapping[str, Value]) -> Value:
        """The value over these names: true or false, or a column of them.

        Raises:
            ExpressionError: a name is missing, or the values do not go together (a text and a number, say).
        """
        self.require(values)
        try:
            result = _evaluate(self._tree, values)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            got = ", ".join(f"{name} = {_shown(values[name])}" for name in self.names)
            raise ExpressionError(f"{self.text!r}: cannot be evaluated with {got}: {error}.") from error
        if not _is_truth(result):
            raise ExpressionError(f"{self.text!r}: expected true or false, got {_shown(result)}. Compare it.")
        return result


def _names(node: ast.AST) -> Iterator[str]:
    """The names below a node; ExpressionError for what is not allowed."""
    name = _name(node)
    if name is not None:
        yield name
        return
    children: list[ast.expr]
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
            children = []
        case ast.List(elts=children) | ast.Tuple(elts=children) | ast.Set(elts=children):
            pass
        case ast.BoolOp(values=children):
            pass
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
            children = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            children = [left, right]
        case ast.Compare(left=left, comparators=others):
            children = [left, *others]
        case ast.Call(func=ast.Name(id=function), args=children, keywords=[]) if function in _FUNCTIONS:
            pass
        case ast.Call(func=ast.Name(id=function)):
            near = did_you_mean(function, _FUNCTIONS) or "."
            raise ExpressionError(f"no such function: {function}{near} Known are {', '.join(_FUNCTIONS)}.")
        case _:
            raise ExpressionError(
                f"expected names, constants, comparisons, and, or, not, in and arithmetic, got {ast.unparse(node)!r}."
            )
    for child in children:
        yield from _names(child)


def _name(node: ast.AST) -> str | None:
    """`length`, `state.x` and `state["x"]` as one name; None for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=inner, attr=name) | ast.Subscript(value=inner, slice=ast.Constant(value=str(name))):
            outer = _name(inner)
            return None if outer is None else f"{outer}.{name}"
    return None


def _evaluate(node: ast.AST, values: Mapping[str, Value]) -> Value:
    name = _name(node)
    if name is not None:
        return values[name]
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return [_evaluate(item, values) for item in items]
        case ast.BoolOp(op=op, values=parts):
            return _joined(isinstance(op, ast.And), parts, values)
        case ast.UnaryOp(op=op, operand=operand):
            value = _evaluate(operand, values)
            if isinstance(op, ast.Not):
                return _not(value)
            return -value if isinstance(op, ast.USub) else +value
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_evaluate(left, values), _evaluate(right, values))
        case ast.Compare(left=first, ops=ops, comparators=others):
            operands = [_evaluate(part, values) for part in (first, *others)]
            pairs = [_compared(op, operands[i], operands[i + 1]) for i, op in enumerate(ops)]
            return functools.reduce(_and, pairs)
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return _FUNCTIONS[function](*(_evaluate(argument, values) for argument in arguments))
    raise AssertionError("`parse` lets nothing else through")


def _joined(all_of: bool, parts: list[ast.expr], values: Mapping[str, Value]) -> Value:
    """`and`, `or`: a plain value that decides is not looked past, so that `seed != None and seed > 5` is safe."""
    result = _truth(_evaluate(parts[0], values))
    for part in parts[1:]:
        if isinstance(result, bool) and result != all_of:
            return result
        other = _truth(_evaluate(part, values))
        result = _and(result, other) if all_of else _or(result, other)
    return result


def _is_truth(value: Value) -> bool:
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"


def _truth(value: Value) -> Value:
    if _is_truth(value):
        return value
    raise TypeError(f"expected true or false, got {_shown(value)}")


def _not(value: Value) -> Value:
    return not value if isinstance(_truth(value), bool) else ~value


def _and(one: Value, other: Value) -> Value:
    return one & other


def _or(one: Value, other: Value) -> Value:
    return one | other


def _compared(op: ast.cmpop, left: Value, right: Value) -> Value:
    if isinstance(op, (ast.In, ast.NotIn)):
        found = _contains(right, left)
        return _not(found) if isinstance(op, ast.NotIn) else found
    if type(op) not in _COMPARISONS:
        raise TypeError("expected == and != , got is")
    result = _COMPARISONS[type(op)](left, right)
    return result if getattr(result, "ndim", 0) else bool(result)


def _contains(container: Value, item: Value) -> Value:
    if getattr(item, "ndim", 0):
        import numpy as np

        return np.isin(item, container)
    if isinstance(container, str) and not isinstance(item, str):
        raise TypeError(f"expected a text to look for, got {_shown(item)}")
    return item in container


def _extreme(choose: str, *items: Value) -> Value:
    import numpy as np

    if len(items) < 2:
        raise TypeError(f"{choose} takes two values or more, got {len(items)}")
    ufunc = np.minimum if choose == "min" else np.maximum
    return functools.reduce(ufunc, items)


def _sqrt(value: Value) -> Value:
    import numpy as np

    return np.sqrt(value)


_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "abs": abs,
    "sqrt": _sqrt,
    "min": functools.partial(_extreme, "min"),
    "max": functools.partial(_extreme, "max"),
    "lower": str.lower,
}


def _shown(value: Value) -> str:
    return f"a column of {len(value)}" if getattr(value, "ndim", 0) else repr(value)
