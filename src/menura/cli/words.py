"""The words of a command line before typer sees them: overrides are taken out, dashes become underscores."""

from __future__ import annotations

from collections.abc import Sequence

# The commands that read a task, and the names of its sections, which are overridden whole: `--policy act`.
TASK_COMMANDS = ("train", "collect", "preflight", "config")
SECTIONS = (
    "datasets",
    "layout",
    "policy",
    "env",
    "expert",
    "trainer",
    "image_encoder",
    "processor",
    "augmentations",
    "training",
    "evaluation",
    "collect",
    "data",
)
# Commands of a policy or a robot that is made already: only these sections have an effect, value by value.
RUN_COMMANDS = {
    "eval": ("env", "evaluation", "controller"),
    "control": ("robot", "controller", "teleop"),
    "check robot": ("robot",),
}


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words for typer, and the overrides: `--a.b v`, `--a.b=v`, `--policy act`.

    Only commands that read a task take overrides, and of `RUN_COMMANDS` each those of its sections; other such words
    are left, and typer refuses them.
    """
    pair = " ".join(words[:2])
    command = pair if pair in RUN_COMMANDS else "".join(words[:1])
    if command not in (*TASK_COMMANDS, *RUN_COMMANDS):
        return [_underscored(word) for word in words], []
    rest: list[str] = []
    overrides: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return [*rest, word, *left], overrides
        if not _is_override(word, RUN_COMMANDS.get(command)):
            rest.append(_underscored(word))
            continue
        overrides.append(word)
        if "=" not in word and left and not _is_option(left[0]):
            overrides.append(left.pop(0))
    return rest, overrides


def meant_overrides(option: str, command: str | None) -> list[str]:
    """The overrides that an option no command has was perhaps meant as: `--max_steps` as `--training.max_steps`."""
    from menura.config.schema import TaskConfig
    from menura.config.training import OWN_KEYS, training_fields

    key = option.lstrip("-")
    keys = {
        name: list(getattr(field.annotation, "model_fields", ())) for name, field in TaskConfig.model_fields.items()
    }
    keys["training"] = [*training_fields(), *OWN_KEYS]
    sections = RUN_COMMANDS.get(command or "", SECTIONS if command in TASK_COMMANDS else ())
    return [f"--{section}.{key}" for section in sections if key in keys.get(section, ())]


def _is_option(word: str) -> bool:
    return word.startswith("--") and word[2:3].isalpha()


def _is_override(word: str, sections_of_run: tuple[str, ...] | None) -> bool:
    if not _is_option(word):
        return False
    name = word.removeprefix("--").partition("=")[0]
    section, dot, _ = name.partition(".")
    if sections_of_run is not None:
        return bool(dot) and section in sections_of_run
    return bool(dot) or name.replace("-", "_") in SECTIONS


def _underscored(word: str) -> str:
    if not _is_option(word):
        return word
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}"
