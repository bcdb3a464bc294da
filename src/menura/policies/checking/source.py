"""Faults that reading a policy's source shows, each with its line and what to write instead. Nothing is run."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

from menura.policies.checking.result import CheckResult

#: What brings the names that policies use most.
USUAL_IMPORTS = {
    "torch": "import torch",
    "nn": "from torch import nn",
    "F": "import torch.nn.functional as F",
    "Tensor": "from torch import Tensor",
    "np": "import numpy as np",
    "math": "import math",
    "PreTrainedModel": "from transformers import PreTrainedModel",
    "PretrainedConfig": "from transformers import PretrainedConfig",
    "AutoModel": "from transformers import AutoModel",
    "einops": "import einops",
    "rearrange": "from einops import rearrange",
}
#: Modules of `torch.nn` without weights: nothing is shared when one of them stands several times in a list.
_WEIGHTLESS = {
    *("ReLU", "ReLU6", "LeakyReLU", "GELU", "SiLU", "Mish", "ELU", "Tanh", "Sigmoid", "Softplus", "Softmax"),
    *("Dropout", "Identity", "Flatten", "Unflatten", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "Upsample"),
}
#: Set for every module by the import system.
_MODULE_NAMES = {"__file__", "__name__", "__doc__", "__path__", "__spec__", "__package__"}


def check_source(file: Path, class_name: str, shown: str | None = None) -> list[CheckResult]:
    """What is wrong in the file of a policy, one result a fault; empty when nothing is.

    Args:
        file: the policy's source, which must parse.
        class_name: the policy.
        shown: the file's name in messages.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    shown = shown or file.name
    return [*_shared_layers(tree, shown), *_missing_imports(tree, shown), *_missing_post_init(tree, class_name, shown)]


# --- `[Linear, ReLU] * n` --------------------------------------------------------------------------------------------


def _shared_layers(tree: ast.Module, shown: str) -> Iterator[CheckResult]:
    """A list of new modules that is repeated, which repeats the modules and not their making."""
    makers = _module_classes(tree)
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.stmt):
            continue
        for node in _own_expressions(statement):
            if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
                continue
            layers, times = (node.left, node.right) if isinstance(node.left, ast.List) else (node.right, node.left)
            if isinstance(layers, ast.List) and any(_has_weights(layer, makers) for layer in layers.elts):
                yield CheckResult("layers of their own", False, _shared_message(statement, layers, times, shown))


def _own_expressions(statement: ast.AST) -> Iterator[ast.AST]:
    """Everything in a statement but the statements within it."""
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt):
            yield child
            yield from _own_expressions(child)


def _module_classes(tree: ast.Module) -> set[str]:
    """Names that make a module with weights: imported from `torch.nn`, or a class of this file on some `…Module`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "torch.nn":
            names |= {alias.asname or alias.name for alias in node.names} - _WEIGHTLESS
        elif isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Module") for base in node.bases):
            names.add(node.name)
    return names


def _has_weights(node: ast.expr, makers: set[str]) -> bool:
    """Whether an expression makes a module with weights, as far as its name tells: `nn.Linear(…)`, `Block(…)`."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        return ast.unparse(node.func.value) in ("nn", "torch.nn") and node.func.attr not in _WEIGHTLESS
    return isinstance(node.func, ast.Name) and node.func.id in makers


def _shared_message(statement: ast.stmt, layers: ast.List, times: ast.expr, shown: str) -> str:
    count = ast.unparse(times)
    one = ast.unparse(layers)
    target = "layers"
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        target = statement.targets[0].id
    later = _chained(layers)
    if later is None:
        lines = [f"{target} = []", f"for _ in range({count}):", f"    {target} += {one}"]
    else:
        lines = [f"{target} = {one}", f"for _ in range({count} - 1):", f"    {target} += {later}"]
    mend = "\n".join(f"    {line}" for line in lines)
    fits = "" if later is None else ", nor does its output fit its input"
    return (
        f"{shown}:{layers.lineno}: expected {count} layers of their own, got the same ones {count} times "
        f"(`{one} * {count}`): they share their weights, which cannot be saved{fits}. Write:\n{mend}"
    )


def _chained(layers: ast.List) -> str | None:
    """The layers as they must be after the first time, when the first one's input width is not its output width."""
    first = layers.elts[0]
    if not isinstance(first, ast.Call) or len(first.args) < 2:
        return None
    width_in, width_out = (ast.unparse(argument) for argument in first.args[:2])
    if width_in == width_out:
        return None
    again = ast.Call(func=first.func, args=[first.args[1], *first.args[1:]], keywords=first.keywords)
    return ast.unparse(ast.List(elts=[again, *layers.elts[1:]], ctx=ast.Load()))


# --- names nobody binds ----------------------------------------------------------------------------------------------


def _missing_imports(tree: ast.Module, shown: str) -> Iterator[CheckResult]:
    """Names that are used and bound nowhere in the file, in any scope: certainly missing, if not all that may be."""
    bound = set(_bound_names(tree)) | set(dir(builtins)) | _MODULE_NAMES
    if "*" in bound:
        return
    first_use: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in bound:
            first_use[node.id] = min(node.lineno, first_use.get(node.id, node.lineno))
    for name, line in sorted(first_use.items(), key=lambda item: item[1]):
        usual = USUAL_IMPORTS.get(name)
        mend = f"Write `{usual}` at the top of the file" if usual else "Import or define it"
        yield CheckResult(
            "names are imported",
            False,
            f"{shown}:{line}: expected {name} to be imported or defined, got a name nothing in the file binds. {mend}.",
        )


def _bound_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            yield from node.names
        if isinstance(node, ast.ClassDef):
            yield "__class__"


# --- self.post_init() ------------------------------------------------------------------------------------------------


def _missing_post_init(tree: ast.Module, class_name: str, shown: str) -> Iterator[CheckResult]:
    """A class directly on `PreTrainedModel` whose own `__init__` never calls `self.post_init()`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or node.name != class_name:
            continue
        bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        init = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
        if "PreTrainedModel" not in bases or init is None or _calls_post_init(init):
            continue
        yield CheckResult(
            "self.post_init()",
            True,
            f"{shown}:{init.end_lineno}: note: __init__ ends without `self.post_init()`, and transformers cannot load "
            "such a model back. Menura completes it; to load it without Menura, write as the last line of __init__:\n"
            f"{' ' * 4}self.post_init()",
        )


def _calls_post_init(init: ast.FunctionDef) -> bool:
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "post_init"
        for node in ast.walk(init)
    )
