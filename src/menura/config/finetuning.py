"""What of `training:` is about fine-tuning: `peft`, `freeze`, `learning_rates`, `quantization`, `init_from`.

Names are checked against the source of `peft` and of `transformers`, which is read, not imported.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from menura.config.annotations import expected_by_annotation, expected_by_default
from menura.config.origins import Tree
from menura.config.yaml_tree import told
from menura.errors import near_or_known
from menura.source import module_file

KEYS = ("peft", "freeze", "learning_rates", "quantization", "init_from")
INIT_FROM_KEYS = ("path", "require")

# Fields of peft's that Menura sets, or that are about running adapters and not about making them.
_NOT_GIVEN = ("peft_type", "auto_mapping", "base_model_name_or_path", "inference_mode", "runtime_config", "task_type")
# Fields that would change the base, or need what a training does not give: name -> what to do instead.
_UNFIT = {
    "layer_replication": "expected the policy's own layers. Give another number of layers in policy.args",
    "trainable_token_indices": "expected whole modules. Name them under modules_to_save",
    **dict.fromkeys(
        ("eva_config", "corda_config", "lora_ga_config", "loftq_config"),
        "expected adapters that begin without looking at data. Leave it out",
    ),
}


def finetuning_problem(key: str, training: Mapping[str, Any]) -> str | None:
    """What is wrong with `training.<key>`; None when nothing is, or it is null."""
    value = training[key]
    return None if value is None else _PROBLEMS[key](value, training)


def anchor_init_from(tree: Tree, project: Path) -> None:
    """Make a relative `training.init_from` absolute: it begins at the project, on the command line where one stands.

    What exists in neither place is left as it is: the id of a repository on the Hub, or an error when it is opened.
    """
    training = tree.value.get("training")
    given = training.get("init_from") if isinstance(training, dict) else None
    path = given.get("path") if isinstance(given, dict) else given
    if not isinstance(path, str) or not isinstance(training, dict):
        return
    origin = tree.origin(("training", "init_from"))
    typed = origin is not None and origin.kind == "command line"
    bases = (Path.cwd(), project) if typed else (project, Path.cwd())
    places = (base / Path(path).expanduser() for base in bases)
    anchored = next((str(place.resolve()) for place in places if place.exists()), path)
    if isinstance(given, dict):
        given["path"] = anchored
    else:
        training["init_from"] = anchored


def _peft_problem(value: Any, training: Mapping[str, Any]) -> str | None:
    if not isinstance(value, dict):
        return f"expected a mapping such as {{type: lora, r: 16}}, got {told(value)}"
    if value.get("type", "lora") != "lora":
        return f"expected type: lora (with use_dora: true, DoRA), got {told(value['type'])}"
    if training.get("freeze"):
        return "expected no training.freeze beside it: with adapters everything else is frozen. Remove one"
    fields = lora_fields()
    if not fields:
        return "expected the package peft to be installed, got none. Run `pip install 'menura[peft]'`"
    for name, given in value.items():
        if name == "type":
            continue
        if name in _UNFIT:
            return f"{name}: {_UNFIT[name]}"
        if name == "init_lora_weights" and given not in (True, False, "gaussian", "orthogonal"):
            kept = "expected true, false, gaussian or orthogonal, which leave the base as it is"
            return f"{name}: {kept}, got {told(given)}"
        if name not in fields:
            return f"{name}: no such field of peft.LoraConfig{near_or_known(str(name), fields)}"
        if (expected := expected_by_annotation(fields[name], given)) is not None:
            return f"{name}: expected {expected}, got {told(given)}"
        if name == "r" and given < 1:
            return f"r: expected a rank of at least 1, got {told(given)}"
    return None


def _freeze_problem(value: Any, training: Mapping[str, Any]) -> str | None:
    good = isinstance(value, list) and value and all(isinstance(pattern, str) and pattern for pattern in value)
    return (
        None if good else f"expected a list of patterns of parameter names, such as ['backbone.*'], got {told(value)}"
    )


def _rates_problem(value: Any, training: Mapping[str, Any]) -> str | None:
    if not isinstance(value, dict) or not value:
        return f"expected a mapping of patterns to rates, such as {{'backbone.*': 1.0e-5}}, got {told(value)}"
    for pattern, rate in value.items():
        if not isinstance(pattern, str):
            return f"expected patterns of parameter names, got {told(pattern)}"
        if not isinstance(rate, (int, float)) or isinstance(rate, bool) or rate < 0:
            return f"{pattern}: expected a learning rate of at least 0, got {told(rate)}"
    return None


def _quantization_problem(value: Any, training: Mapping[str, Any]) -> str | None:
    if not isinstance(value, dict):
        return f"expected a mapping such as {{load_in_4bit: true}}, got {told(value)}"
    defaults = quantization_fields()
    for name, given in value.items():
        if name not in defaults:
            return f"{name}: no such field of transformers.BitsAndBytesConfig{near_or_known(str(name), defaults)}"
        if (expected := expected_by_default(defaults[name], given)) is not None:
            return f"{name}: expected {expected}, got {told(given)}"
    if bool(value.get("load_in_4bit")) == bool(value.get("load_in_8bit")):
        return "expected one of load_in_4bit and load_in_8bit to be true"
    if module_file("bitsandbytes", ()) is None:
        return "expected the package bitsandbytes to be installed, got none. Run `pip install 'menura[bitsandbytes]'`"
    if not training.get("peft"):
        return "expected training.peft beside it: weights of 4 or 8 bits do not learn, adapters on them do"
    return None


def _init_from_problem(value: Any, training: Mapping[str, Any]) -> str | None:
    if isinstance(value, str):
        return None if value else "expected the path of a checkpoint, got nothing"
    if not isinstance(value, dict):
        return f"expected the path of a checkpoint, or {{path, require}}, got {told(value)}"
    for name in value:
        if name not in INIT_FROM_KEYS:
            return f"{name}: no such key{near_or_known(str(name), INIT_FROM_KEYS)}"
    if not isinstance(value.get("path"), str) or not value["path"]:
        return f"path: expected the path of a checkpoint, got {told(value.get('path'))}"
    require = value.get("require", [])
    if not isinstance(require, list) or not all(isinstance(pattern, str) for pattern in require):
        return f"require: expected a list of patterns of parameter names, got {told(require)}"
    return None


_PROBLEMS: dict[str, Callable[[Any, Mapping[str, Any]], str | None]] = {
    "peft": _peft_problem,
    "freeze": _freeze_problem,
    "learning_rates": _rates_problem,
    "quantization": _quantization_problem,
    "init_from": _init_from_problem,
}


@functools.lru_cache(maxsize=1)
def lora_fields() -> dict[str, str]:
    """Every field of `peft.LoraConfig` that may be given, with its annotation's text; none without `peft`."""
    body = _class_body("peft.tuners.lora.config", "LoraConfig")
    fields = {
        statement.target.id: ast.unparse(statement.annotation)
        for statement in body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    return {name: annotation for name, annotation in fields.items() if name not in _NOT_GIVEN}


@functools.lru_cache(maxsize=1)
def quantization_fields() -> dict[str, Any]:
    """Every argument of `transformers.BitsAndBytesConfig`, with its default."""
    for statement in _class_body("transformers.utils.quantization_config", "BitsAndBytesConfig"):
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            names = [argument.arg for argument in statement.args.args[1:]]
            return dict(zip(names, map(ast.literal_eval, statement.args.defaults), strict=True))
    return {}


def _class_body(module: str, name: str) -> list[ast.stmt]:
    file = module_file(module, ())
    if file is None:
        return []
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return next((node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), [])
