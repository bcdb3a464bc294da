"""What a policy's config says about the data, and how it is filled in from the data."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from menura.errors import ConfigError, ContractError, did_you_mean
from menura.features import Features

Locate = Callable[[str], str]


@dataclass(frozen=True)
class Needs:
    """The plain attributes of a config that shape its data, each with its default worked out.

    Attributes:
        chunk_size: T, actions answered; None when the policy predicts one action (B, A).
        n_action_steps: actions executed before predicting again; `chunk_size` when not said, 1 without chunks.
        n_obs_steps: O, observations given.
        observation_offsets: their frames relative to now, oldest first, each ≤ 0: `(1 - O, …, 0)` when not said.
        action_offsets: frames of the actions in training relative to now, `(0, …, T - 1)` when not said; None without
            chunks. There may be more of them than `chunk_size`: a policy that learns from past steps, too, answers the
            chunk that begins now.
        camera_names: the cameras, in order; None when the config does not say (then all of the data's).
        image_size: (height, width) of the images; None when any size will do.
        image_normalize: how pixels in [0, 1] are normalized further; None for not at all.
    """

    chunk_size: int | None = None
    n_action_steps: int = 1
    n_obs_steps: int = 1
    observation_offsets: tuple[int, ...] = (0,)
    action_offsets: tuple[int, ...] | None = None
    camera_names: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None
    image_normalize: Any = None

    @classmethod
    def of(cls, config: PretrainedConfig) -> Needs:
        """Read a config.

        Raises:
            ContractError: the attributes contradict each other; all contradictions in one message.
        """
        needs, problems = _read(config)
        if problems:
            name = type(config).__name__
            raise ContractError("\n".join(f"{name}.{key}: {message}" for key, message in problems))
        return needs

    def cameras(self, features: Features) -> tuple[str, ...]:
        """The cameras in order: those the config names, else all of the data's."""
        return tuple(features.cameras) if self.camera_names is None else self.camera_names


Problem = tuple[str, str]  # (attribute, message)


def _read(config: PretrainedConfig) -> tuple[Needs, list[Problem]]:
    problems: list[Problem] = []
    chunk_size, action_offsets = _actions(config, problems)
    n_obs_steps, observation_offsets = _observations(config, problems)
    n_action_steps = _count(config, "n_action_steps", problems) or chunk_size or 1
    if n_action_steps > (chunk_size or 1):
        message = f"expected at most chunk_size = {chunk_size or 1}, got {n_action_steps}."
        problems.append(("n_action_steps", f"{message} Execute fewer actions or predict more."))
    needs = Needs(
        chunk_size=chunk_size,
        n_action_steps=n_action_steps,
        n_obs_steps=n_obs_steps,
        observation_offsets=observation_offsets,
        action_offsets=action_offsets,
        camera_names=_camera_names(config, problems),
        image_size=_image_size(config, problems),
        image_normalize=getattr(config, "image_normalize", None),
    )
    return needs, problems


def _actions(config: PretrainedConfig, problems: list[Problem]) -> tuple[int | None, tuple[int, ...] | None]:
    """`chunk_size` and `action_offsets`, each from the other where it alone is said; None: a single action."""
    chunk_size = _count(config, "chunk_size", problems)
    offsets = _offsets(config, "action_offsets", problems)
    if chunk_size is None and offsets is not None:
        chunk_size = len(offsets)
    if offsets is None and chunk_size is not None:
        offsets = tuple(range(chunk_size))
    # There may be more of them: those of past steps, which a policy learns from and does not answer.
    answered = set(range(chunk_size or 0))
    if offsets is not None and len(offsets) != chunk_size and not answered <= set(offsets):
        wanted = f"chunk_size = {chunk_size} of them, or more of them with 0 … {max(answered)} among them"
        problems.append(("action_offsets", f"expected {wanted}, got {list(offsets)}. Change either."))
    return chunk_size, offsets


def _observations(config: PretrainedConfig, problems: list[Problem]) -> tuple[int, tuple[int, ...]]:
    """`n_obs_steps` and `observation_offsets`, each from the other where it alone is said."""
    n_obs_steps = _count(config, "n_obs_steps", problems)
    offsets = _offsets(config, "observation_offsets", problems)
    if n_obs_steps is None:
        n_obs_steps = 1 if offsets is None else len(offsets)
    if offsets is None:
        offsets = tuple(range(1 - n_obs_steps, 1))
    if len(offsets) != n_obs_steps:
        message = f"expected n_obs_steps = {n_obs_steps} of them, got {len(offsets)}. Change either."
        problems.append(("observation_offsets", message))
    if offsets[-1] > 0:
        problems.append(("observation_offsets", f"expected none above 0 (the future), got {list(offsets)}."))
    return n_obs_steps, offsets


def _count(config: PretrainedConfig, name: str, problems: list[Problem]) -> int | None:
    value = getattr(config, name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        problems.append((name, f"expected a whole number of at least 1, got {value!r}."))
        return None
    return value


def _offsets(config: PretrainedConfig, name: str, problems: list[Problem]) -> tuple[int, ...] | None:
    value = getattr(config, name, None)
    if value is None:
        return None
    numbers = isinstance(value, (list, tuple)) and all(type(step) is int for step in value)
    if not numbers or not value or any(b <= a for a, b in itertools.pairwise(value)):
        problems.append((name, f"expected whole numbers in rising order, got {value!r}."))
        return None
    return tuple(value)


def _camera_names(config: PretrainedConfig, problems: list[Problem]) -> tuple[str, ...] | None:
    value = getattr(config, "camera_names", None)
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        problems.append(("camera_names", f"expected a list of camera names, got {value!r}."))
        return None
    twice = sorted({name for name in value if list(value).count(name) > 1})
    if twice:
        problems.append(("camera_names", f"expected each camera once, got {', '.join(twice)} more than once."))
    return tuple(value)


def _image_size(config: PretrainedConfig, problems: list[Problem]) -> tuple[int, int] | None:
    value = getattr(config, "image_size", None)
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(sides, (list, tuple))
        or len(sides) != 2
        or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides)
    ):
        problems.append(("image_size", f"expected one side or [height, width] in pixels, got {value!r}."))
        return None
    return int(sides[0]), int(sides[1])


def config_parameters(config_class: type[PretrainedConfig]) -> dict[str, inspect.Parameter]:
    """The arguments a config class takes, its own and those of its bases below `PretrainedConfig`."""
    found: dict[str, inspect.Parameter] = {}
    inherited = {field.name for field in dataclasses.fields(PretrainedConfig)}
    for field in dataclasses.fields(config_class):
        if field.name not in inherited:
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            found[field.name] = inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type
            )
    for cls in config_class.__mro__:
        if cls is PretrainedConfig:
            break
        init = cls.__dict__.get("__init__")
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        for parameter in parameters:
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if named and parameter.name not in inherited:
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break  # nothing is passed on to the bases
    return found


def fill_config(
    config_class: type[PretrainedConfig],
    args: Mapping[str, Any],
    features: Features | None = None,
    *,
    image_encoder_dim: int | None = None,
    locate: Locate | None = None,
) -> PretrainedConfig:
    """A config from the user's arguments, completed from the data.

    `state_dim`, `action_dim`, `camera_names` and `image_feature_dim` are set to what the data says when the class
    takes them and the user gave none, and refused when the user's value contradicts the data.

    Args:
        config_class: a subclass of `PretrainedConfig`.
        args: what the user gave.
        features: of the data; None fills nothing in.
        image_encoder_dim: features per camera of the task's image encoder; None without one.
        locate: `"policy.args.x"` -> `"file:line"`, for messages.

    Raises:
        ConfigError: with every problem found.
    """
    parameters = config_parameters(config_class)
    problems: list[Problem] = []
    for name, value in args.items():
        if name not in parameters:
            problems.append((name, _no_such_argument(name, config_class, parameters)))
        else:
            problems.extend(_wrong_type(name, value, parameters[name]))
    filled = dict(args)
    if features is not None and not problems:
        for name, (value, source) in _facts(features, args, image_encoder_dim, problems).items():
            if name in args and args[name] is not None and args[name] != value:
                problems.append(
                    (
                        name,
                        f"expected {value}, {source}, got {args[name]}. "
                        "Remove it (it is filled in from the data) or use other data.",
                    )
                )
            elif name in parameters:
                filled[name] = value
    _raise(problems, locate)
    try:
        config = config_class(**filled)
    except (TypeError, ValueError) as error:
        raise ConfigError(_message("policy.args", f"{config_class.__name__} refuses them: {error}", locate)) from error
    _raise(_read(config)[1], locate)
    return config


def _facts(
    features: Features, args: Mapping[str, Any], image_encoder_dim: int | None, problems: list[Problem]
) -> dict[str, tuple[Any, str]]:
    """Attribute -> (value, where it comes from) for what the data decides."""
    cameras = list(features.cameras)
    chosen = args.get("camera_names")
    if isinstance(chosen, (list, tuple)):
        for camera in chosen:
            if camera not in cameras:
                near = did_you_mean(str(camera), cameras) or "."
                problems.append(
                    (
                        "camera_names",
                        f"expected cameras of the data ({', '.join(cameras) or 'none'}), got {camera}{near}",
                    )
                )
        cameras = list(chosen)
    facts: dict[str, tuple[Any, str]] = {
        "state_dim": (features.state_dim, "the width of the data's state"),
        "action_dim": (features.action_dim, "the width of the data's action"),
        "camera_names": (cameras, "the cameras of the data"),
    }
    if image_encoder_dim is not None:
        width = image_encoder_dim * len(cameras)
        facts["image_feature_dim"] = (
            width,
            f"{image_encoder_dim} of the image encoder for each of {len(cameras)} cameras",
        )
    return facts


def _no_such_argument(name: str, config_class: type, parameters: Mapping[str, object]) -> str:
    step = did_you_mean(name, parameters) or f"; it takes {', '.join(parameters) or 'none'}."
    return f"no such argument of {config_class.__name__}{step}"


def _wrong_type(name: str, value: Any, parameter: inspect.Parameter) -> list[Problem]:
    """What is certainly wrong, judged by a plain annotation or else by the default's type."""
    default = parameter.default
    if value is None or (name == "image_size" and isinstance(value, (list, tuple))):  # one number or two
        return []
    if name == "image_normalize" and isinstance(value, (list, tuple, Mapping)):  # a name, or one's own numbers
        return []
    plain = {"int": int, "float": float, "bool": bool, "str": str}
    annotation = parameter.annotation
    kind = plain.get(annotation if isinstance(annotation, str) else getattr(annotation, "__name__", ""))
    if kind is None:
        kind = type(default) if type(default) in plain.values() else None
        if kind is int:
            kind = float  # without an annotation it may be a number that happens to be whole: `dropout=0`
    if kind is None or type(value) is kind or (kind is float and type(value) is int):
        return []
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return [(name, f"expected {names[kind]}, got {value!r}.")]


def _message(key: str, message: str, locate: Locate | None) -> str:
    where = f" ({locate(key)})" if locate is not None else ""
    return f"{key}: {message}{where}"


def _raise(problems: Sequence[Problem], locate: Locate | None) -> None:
    if problems:
        raise ConfigError([_message(f"policy.args.{name}", message, locate) for name, message in problems])
