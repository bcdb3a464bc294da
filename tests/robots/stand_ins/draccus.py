"""A stand-in for draccus: a registry of configuration classes, and decoding of a mapping into one."""

import dataclasses


class DecodingError(Exception):
    pass


class ChoiceRegistry:
    _choices: dict = {}  # noqa: RUF012

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if ChoiceRegistry in cls.__bases__:
            cls._choices = {}

    @classmethod
    def register_subclass(cls, name):
        def register(subclass):
            cls._choices[name] = subclass
            return subclass

        return register

    @classmethod
    def get_known_choices(cls):
        return cls._choices

    @classmethod
    def get_choice_class(cls, name):
        return cls._choices[name]

    @classmethod
    def get_choice_name(cls, subclass):
        return next(name for name, known in cls._choices.items() if known is subclass)


def decode(cls, raw):
    from lerobot.cameras import CameraConfig

    values = dict(raw)
    if "cameras" in values:
        cameras = values["cameras"].items()
        values["cameras"] = {
            name: CameraConfig.get_choice_class(camera["type"])(**{k: v for k, v in camera.items() if k != "type"})
            for name, camera in cameras
        }
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in values
    ]
    if missing:
        raise DecodingError(f"Missing required field(s) {missing} for {cls.__name__}")
    return cls(**values)
