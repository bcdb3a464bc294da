"""`docs/reference.md` names every key, component and option there is, with its default, and no others."""

from __future__ import annotations

import inspect
import re
import types
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import typer
from pydantic import BaseModel

from menura.cli.main import app
from menura.components import BUILT_IN, find
from menura.config.schema import RolloutsConfig, TaskConfig
from menura.config.training import OWN_KEYS
from menura.config.yaml_tree import format_value
from menura.data.formats import FORMATS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference.md"
FORMATS_PAGE = PAGE.with_name("formats.md")
FROM_TRAINER = "Trainer"  # is given its arguments by Menura


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, without their heads."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in found if row[0].startswith("`")]


def section(title: str) -> str:
    """What stands below a heading, up to the next one."""
    match = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert match, f"docs/reference.md: no heading {title!r}"
    return match.group(1)


def bare(cell: str) -> str:
    return cell.strip("`")


def shown(default: Any) -> str:
    """A default as YAML has it."""
    if isinstance(default, (dict, list)) and not default:
        return str(default)
    return format_value(default)


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Dotted key -> default, of a section and those in it."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        inner, listed = section_in(field.annotation)
        required = field.is_required()
        default = None if required else field.get_default(call_default_factory=True)
        if inner is None:
            found[key] = "required" if required else shown(default)
        elif not required and (listed or default is None):
            found[key] = shown(default)
        if inner is not None:
            found |= keys_of(inner, f"{key}.0." if listed else f"{key}.")
    return found


def section_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """(the section an annotation holds, whether in a list)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    inner = [section_in(argument)[0] for argument in get_args(annotation)]
    model = next((found for found in inner if found is not None), None)
    is_union = get_origin(annotation) is types.UnionType
    return model, model is not None and not is_union


def test_every_key_of_a_task() -> None:
    expected = keys_of(TaskConfig)
    assert {bare(row[0]): bare(row[1]) for row in rows(section("A task's YAML"))} == expected


def test_every_key_that_menura_adds_to_training() -> None:
    expected = dict.fromkeys((f"training.{key}" for key in OWN_KEYS if key != "rollouts"), "null")
    expected |= keys_of(RolloutsConfig, "training.rollouts.")
    assert {bare(row[0]): bare(row[1]) for row in rows(section("training"))} == expected


def test_every_component_and_its_arguments() -> None:
    expected = {}
    for kind, names in BUILT_IN.items():
        for name in names:
            found = find(kind, name, PAGE.parent)
            described = found.config_class() if kind == "policy" else found
            assert described is not None
            own = [] if name == FROM_TRAINER else list(described.parameters().names)
            expected[kind, name] = own[1:] if kind == "wrapper" else own  # the first is the reader within
    printed = {(bare(row[0]), bare(row[1])): re.findall(r"`(\w+)`", row[2]) for row in rows(section("Components"))}
    assert printed == expected


def commands(command: Any, name: str = "menura") -> dict[str, Any]:
    if not hasattr(command, "commands"):
        return {name: command}
    return {
        key: leaf for part, inner in command.commands.items() for key, leaf in commands(inner, f"{name} {part}").items()
    }


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command(name: str) -> None:
    expected = {}
    for parameter in COMMANDS[name].params:
        is_option = parameter.param_type_name == "option"
        names = (
            frozenset([*parameter.opts, *parameter.secondary_opts])
            if is_option
            else frozenset([parameter.name.upper()])
        )
        said = isinstance(parameter.default, (str, int)) and not isinstance(parameter.default, bool)
        expected[names] = "required" if parameter.required else parameter.default if said else None
    printed = {frozenset(re.findall(r"`([^`]+)`", row[0])): bare(row[1]) for row in rows(section(name))}
    assert printed.keys() == expected.keys()
    wrong = {names: printed[names] for names, default in expected.items() if default is not None}
    assert wrong == {names: str(default) for names, default in expected.items() if default is not None}


def test_no_command_that_is_not_there() -> None:
    assert set(re.findall(r"^### (menura .*)$", PAGE.read_text(), re.MULTILINE)) == set(COMMANDS)


def test_every_format_and_its_options() -> None:
    """Of the table in docs/formats.md; an option that has a default says it."""
    printed = {bare(row[0]): row[-1] for row in rows(FORMATS_PAGE.read_text()) if bare(row[0]) in FORMATS}
    assert printed.keys() == FORMATS.keys()
    for name, cell in printed.items():
        own = {
            option: parameter.default
            for option, parameter in inspect.signature(FORMATS[name].load()).parameters.items()
            if option not in ("path", "keys", "episodes", "name")
        }
        said = {option: bare(default) for option, default in re.findall(r"`(\w+)`(?: \(([^)]*)\))?", cell)}
        assert said.keys() == own.keys(), name
        for option, default in own.items():
            if default not in (None, False):
                assert said[option] == shown(default).removesuffix(".0"), (name, option)
