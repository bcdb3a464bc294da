"""Components: a class name in a YAML becomes a class. Classes are found by reading source, and one module is imported.

A name is looked up in this order:

1. `pkg.module:Class` or `path/to/file.py:Class`, exactly that;
2. the user's project: every `*.py` under `<project>/<kind>/`;
3. Menura's own (`BUILT_IN`);
4. installed packages' entry points, group `menura.<kind>`.

Nothing needs to be registered. Imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from menura.errors import ComponentError, ConfigError, MenuraError, did_you_mean, near_or_known
from menura.source import UNKNOWN, Constant, Parameters, SourceClass, SourceModule, class_line, module_file
from menura.user_code import last_frame

# kind -> name in YAML -> where the class is.
BUILT_IN: dict[str, dict[str, str]] = {
    "policy": {
        "MLPPolicy": "menura.policies.mlp.modeling_mlp:MLPPolicy",
        "CNNMLPPolicy": "menura.policies.cnn_mlp.modeling_cnn_mlp:CNNMLPPolicy",
        "ACTPolicy": "menura.policies.act.modeling_act:ACTPolicy",
        "FlowPolicy": "menura.policies.flow.modeling_flow:FlowPolicy",
        "DiTMultitaskPolicy": "menura.policies.dit_multitask.modeling_dit_multitask:DiTMultitaskPolicy",
        "DiffusionPolicy": "menura.policies.diffusion.modeling_diffusion:DiffusionPolicy",
        "RDTPolicy": "menura.policies.rdt.modeling_rdt:RDTPolicy",
        "OctoPolicy": "menura.policies.octo.modeling_octo:OctoPolicy",
        "QwenVLDiffusionPolicy": "menura.policies.qwen_vl_diffusion.modeling_qwen_vl_diffusion:QwenVLDiffusionPolicy",
        "SmolVLAPolicy": "menura.policies.smolvla.modeling_smolvla:SmolVLAPolicy",
        "PI0Policy": "menura.policies.pi0.modeling_pi0:PI0Policy",
        "PI05Policy": "menura.policies.pi05.modeling_pi05:PI05Policy",
        "PI0FastPolicy": "menura.policies.pi0_fast.modeling_pi0_fast:PI0FastPolicy",
        "OpenVLAPolicy": "menura.policies.openvla.modeling_openvla:OpenVLAPolicy",
        "BCRNNPolicy": "menura.policies.bc_rnn.modeling_bc_rnn:BCRNNPolicy",
        "VQBeTPolicy": "menura.policies.vqbet.modeling_vqbet:VQBeTPolicy",
        "ZeroPolicy": "menura.policies.zero.modeling_zero:ZeroPolicy",
        "RandomPolicy": "menura.policies.random.modeling_random:RandomPolicy",
        "ReplayPolicy": "menura.policies.replay.modeling_replay:ReplayPolicy",
    },
    "dataset": {},
    "env": {
        "Gym": "menura.envs.gym:GymEnv",
        "Aloha": "menura.envs.aloha:AlohaEnv",
        "MetaWorld": "menura.envs.metaworld:MetaWorldEnv",
        "PushT": "menura.envs.pusht:PushTEnv",
        "DmControl": "menura.envs.dm_control:DmControlEnv",
        "GymRobotics": "menura.envs.gym_robotics:GymRoboticsEnv",
        "PandaGym": "menura.envs.panda_gym:PandaGymEnv",
        "Robosuite": "menura.envs.robosuite:RobosuiteEnv",
        "Libero": "menura.envs.libero:LiberoEnv",
        "ManiSkill": "menura.envs.maniskill:ManiSkillEnv",
        "SimplerEnv": "menura.envs.simpler:SimplerEnv",
        "RoboTwin": "menura.envs.robotwin:RoboTwinEnv",
        "Calvin": "menura.envs.calvin:CalvinEnv",
        "RoboCasa": "menura.envs.robocasa:RoboCasaEnv",
    },
    "expert": {
        "AlohaTransferExpert": "menura.envs.experts.aloha_transfer:AlohaTransferExpert",
        "AlohaInsertionExpert": "menura.envs.experts.aloha_insertion:AlohaInsertionExpert",
        "MetaWorldExpert": "menura.envs.experts.metaworld:MetaWorldExpert",
        "RobosuiteExpert": "menura.envs.experts.robosuite:RobosuiteExpert",
        "FetchExpert": "menura.envs.experts.fetch:FetchExpert",
        "PandaExpert": "menura.envs.experts.panda:PandaExpert",
        "PushTExpert": "menura.envs.experts.pusht:PushTExpert",
    },
    "trainer": {"Trainer": "menura.training.trainer:MenuraTrainer"},
    "image_encoder": {"VisionEncoder": "menura.policies.image_encoder:VisionEncoder"},
    "augmentation": {
        "RandomShift": "menura.processing.augmentation.images:RandomShift",
        "RandomCrop": "menura.processing.augmentation.images:RandomCrop",
        "ColorJitter": "menura.processing.augmentation.images:ColorJitter",
        "GaussianBlur": "menura.processing.augmentation.images:GaussianBlur",
        "Cutout": "menura.processing.augmentation.images:Cutout",
        "StateNoise": "menura.processing.augmentation.vectors:StateNoise",
        "ActionNoise": "menura.processing.augmentation.vectors:ActionNoise",
    },
    "wrapper": {
        "Rename": "menura.data.wrappers.rename:Rename",
        "Resample": "menura.data.wrappers.resample:Resample",
        "Trim": "menura.data.wrappers.trim:Trim",
        "ConvertActions": "menura.data.wrappers.convert_actions:ConvertActions",
        "ConvertRotations": "menura.data.wrappers.convert_rotations:ConvertRotations",
        "DeclareFeatures": "menura.data.wrappers.declare_features:DeclareFeatures",
    },
    "robot": {
        "SimRobot": "menura.robots.sim:SimRobot",
        "DummyRobot": "menura.robots.dummy:DummyRobot",
        "ReplayRobot": "menura.robots.replay:ReplayRobot",
        "LeRobotRobot": "menura.robots.lerobot:LeRobotRobot",
        "PyBulletJoints": "menura.robots.pybullet:PyBulletJoints",
        "PyBulletEndEffector": "menura.robots.pybullet:PyBulletEndEffector",
        "Ros2Robot": "menura.robots.ros2:Ros2Robot",
    },
    "teleop": {
        "Keyboard": "menura.teleop.keyboard:Keyboard",
        "ExpertTakeover": "menura.teleop.expert:ExpertTakeover",
        "LeRobotTeleoperator": "menura.teleop.lerobot:LeRobotTeleoperator",
    },
    "controller": {
        "Newest": "menura.control.controllers.newest:Newest",
        "OldestFirst": "menura.control.controllers.oldest_first:OldestFirst",
        "TemporalEnsemble": "menura.control.controllers.temporal_ensemble:TemporalEnsemble",
        "DelayCompensated": "menura.control.controllers.delay_compensated:DelayCompensated",
        "Interpolating": "menura.control.controllers.interpolating:Interpolating",
        "RealTimeChunking": "menura.control.controllers.real_time_chunking:RealTimeChunking",
    },
}
KINDS = tuple(BUILT_IN)

# transformers takes either: `config_class = X`, or the annotation `config: X`.
_CONFIG_ATTRIBUTES = ("config_class", "config")


@dataclass(frozen=True)
class Found:
    """A class found by reading source, not yet imported.

    Attributes:
        kind: what it was looked up as, such as `policy`.
        name: the class's own name.
        file: where it is defined, or None when its source cannot be read.
        line: the line of its `class` statement, from 1.
        module: its dotted name when it is importable, else None: it is then loaded from `file`.
        project: the folder that is on `sys.path` while it is imported.
    """

    kind: str
    name: str
    file: Path | None
    line: int
    module: str | None
    project: Path

    @property
    def where(self) -> str:
        """`policy/my_cool_policy.py:12`."""
        return f"{_shown(self.file, self.project)}:{self.line}" if self.file is not None else str(self.module)

    def load(self) -> type:
        """Import the one module and return the class; ComponentError names the file and line of whatever fails."""
        try:
            module = self._import()
        except MenuraError:
            raise  # says all there is to say
        except (Exception, SystemExit) as error:
            raise ComponentError(_import_failure(self, error)) from error
        value = getattr(module, self.name, None)
        if not isinstance(value, type):
            got = "nothing of that name" if value is None else f"a {type(value).__name__}"
            raise ComponentError(f"{self.where}: expected {self.name} to be a class, got {got}.")
        return value

    def parameters(self) -> Parameters:
        """What the class's constructor takes, read from source; unknown source takes anything."""
        source = self._source()
        return source.parameters() if source is not None else UNKNOWN

    def config_class(self) -> Found | None:
        """Of a policy: the class its `config_class` (or its annotation `config:`) names, here or in a base class."""
        source = self._source()
        linked = source.linked_class(*_CONFIG_ATTRIBUTES) if source is not None else None
        if linked is None:
            return None
        found = _found(self.kind, linked, self.project)
        beside = self.module is None and self.file is not None and linked.module.file.parent == self.file.parent
        return replace(found, module=None) if beside else found

    def constant(self, name: str) -> Constant | None:
        """The literal that a class attribute is set to, as far as source tells."""
        source = self._source()
        return source.constant(name) if source is not None else None

    def lacks_config_class(self) -> bool:
        """Of a policy: whether its source certainly names no config class."""
        source = self._source()
        return source is not None and source.lacks(*_CONFIG_ATTRIBUTES)

    def _source(self) -> SourceClass | None:
        if self.file is None:
            return None
        file = self.file if self.module is None else module_file(self.module, (self.project,))
        return _open(file, self.module, self.project).find_class(self.name) if file is not None else None

    def _import(self) -> ModuleType:
        name = self.module
        if name is None:
            assert self.file is not None  # a class without a module was found in a file
            name = f"{_loose_package(self.file.parent)}.{self.file.stem}"
        _forget_other_projects(name, self.project)
        sys.path.insert(0, str(self.project))
        try:
            importlib.invalidate_caches()
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(self.project))


def find(kind: str, name: str, project: Path) -> Found:
    """Look a class up; ComponentError when there is none, more than one, or its file does not parse."""
    if kind not in BUILT_IN:
        raise ComponentError(f"component: no kind is named {kind!r}{near_or_known(kind, KINDS)}")
    project = project.resolve()
    if ":" in name:
        return _exact(kind, name, project)
    if (found := _in_project(kind, name, project)) is not None:
        return found
    target = BUILT_IN[kind].get(name) or _entry_points(kind).get(name)
    if target is not None:
        return _exact(kind, target, project)
    raise ComponentError(_not_found(kind, name, project))


def load(kind: str, name: str, project: Path) -> type:
    """Look a class up and import it."""
    return find(kind, name, project).load()


def class_of_file(kind: str, stem: str, project: Path) -> str | None:
    """The class in the project's `<kind>/<stem>.py` that is named as the file: `MyRobot` in `robot/my_robot.py`."""
    file = project / kind / f"{stem}.py"
    if not file.is_file():
        return None
    classes = _classes(file)
    if isinstance(classes, SyntaxError):
        raise ComponentError(_syntax_message(classes, project)) from classes
    folded = stem.replace("_", "").casefold()
    return next((f"{kind}/{stem}.py:{name}" for name in sorted(classes) if name.casefold() == folded), None)


class Configured(Protocol):
    """A component as a validated configuration has it."""

    @property
    def class_(self) -> str: ...
    @property
    def args(self) -> Mapping[str, Any]: ...


def look_up(
    kind: str, config: Configured | Mapping[str, Any], project: Path, keys: tuple[str, ...] = ()
) -> tuple[Found, Mapping[str, Any]]:
    """The class that `{class: …, args: …}` names, not yet imported, and its arguments, which it takes.

    Args:
        keys: what a mapping may hold besides `class` and `args`.

    Raises:
        ConfigError: a key or an argument is unknown or missing. ComponentError: no such class.
    """
    if isinstance(config, Mapping):
        unknown = [key for key in config if key not in ("class", "args", *keys)]
        if unknown or "class" not in config:
            raise ConfigError(f"{kind}: expected class and args, got {', '.join(map(str, config)) or 'nothing'}.")
        name, args = config["class"], config.get("args") or {}
    else:
        name, args = config.class_, config.args
    found = find(kind, name, project)
    parameters = found.parameters()
    for argument in args:
        if argument not in parameters.names and not parameters.var_keyword:
            hint = near_or_known(argument, parameters.names)
            raise ConfigError(f"{kind}.args.{argument}: no such argument of {found.name}{hint}")
    for argument in parameters.required:
        if argument not in args:
            raise ConfigError(f"{kind}.args.{argument}: expected a value, which {found.name} requires, got none.")
    return found, args


def build(kind: str, config: Configured | Mapping[str, Any], project: Path | None = None) -> Any:
    """The object that `{class: …, args: …}` describes.

    A constructor with an argument `project`, which has a default, is told it.

    Raises:
        ConfigError, ComponentError: as `look_up`, and what importing and building it raises.
    """
    project = project or Path.cwd()
    found, args = look_up(kind, config, project)
    told = {"project": project} if "project" in found.parameters().names else {}
    return found.load()(**{**told, **args})


# --- looking up ------------------------------------------------------------------------------------------------------


def _exact(kind: str, name: str, project: Path) -> Found:
    """`pkg.module:Class` or `path/to/file.py:Class`."""
    place, _, class_name = name.rpartition(":")
    if not class_name.isidentifier():
        raise ComponentError(f"{name!r}: expected pkg.module:Class or path/to/file.py:Class")
    module: str | None
    if place.endswith(".py"):
        file = next((path for path in (project / place, Path(place).absolute()) if path.is_file()), None)
        if file is None:
            raise ComponentError(f"{name}: no such file: {place}")
        module = _dotted(file.resolve(), project)
    else:
        file, module = module_file(place, (project,)), place
        if file is None:
            return _without_source(kind, class_name, place, project)
    source = _open(file.resolve(), module, project)
    if (found := source.find_class(class_name)) is not None:
        return Found(kind, class_name, found.module.file, found.node.lineno, module, project)
    if not source.defines(class_name) and file.is_relative_to(project):
        hint = near_or_known(class_name, source.classes)
        raise ComponentError(f"{_shown(file, project)}: no class is named {class_name!r}{hint}")
    # Bound in a way that only running it can tell, such as a lazily importing package.
    return Found(kind, class_name, file, 1, module, project)


def _without_source(kind: str, name: str, module: str, project: Path) -> Found:
    top_level = module.partition(".")[0]
    spec_found = any(module_file(part, (project,)) for part in (module, top_level))
    if not spec_found and top_level not in sys.builtin_module_names:
        modules = _own_modules(project)
        raise ComponentError(f"{module}:{name}: no module is named {module!r}{near_or_known(module, modules)}")
    return Found(kind, name, None, 1, module, project)


def _in_project(kind: str, name: str, project: Path) -> Found | None:
    """The class among the project's own files; one `class` statement counts, not the imports that repeat it."""
    definitions: list[SourceClass] = []
    packages: list[SourceModule] = []
    for file in _python_files(project / kind):
        if name not in file.read_text(encoding="utf-8", errors="replace"):
            continue
        try:
            module = SourceModule(file, _dotted(file, project), (project,))
        except SyntaxError as error:
            if class_line(file, name) is None:
                continue
            raise ComponentError(_syntax_message(error, project)) from error
        if name in module.classes:
            definitions.append(SourceClass(module, module.classes[name]))
        elif file.name == "__init__.py" and name in module.imports:
            packages.append(module)
    if len(definitions) > 1:
        places = " and ".join(f"{_shown(item.module.file, project)}:{item.node.lineno}" for item in definitions)
        exact = f"{_shown(definitions[0].module.file, project)}:{name}"
        raise ComponentError(f"{name} is defined more than once: {places}. Say which, as in {exact}")
    if definitions:
        return _found(kind, definitions[0], project)
    for package in packages:  # re-exported from outside this folder
        origin = package.find_class(name)
        file, line = (origin.module.file, origin.node.lineno) if origin is not None else (package.file, 1)
        return Found(kind, name, file, line, package.name, project)
    return None


def _found(kind: str, source: SourceClass, project: Path) -> Found:
    return Found(kind, source.node.name, source.module.file, source.node.lineno, source.module.name, project)


def _open(file: Path, module: str | None, project: Path) -> SourceModule:
    # A loose file's neighbours stand for its package.
    roots = (project,) if module is not None else (project, file.parent)
    try:
        return SourceModule(file, module, roots)
    except SyntaxError as error:
        raise ComponentError(_syntax_message(error, project)) from error


def _python_files(folder: Path) -> Iterator[Path]:
    """Every Python file below a folder, in a fixed order; not those of a virtual environment, which may be `env/`."""
    for place, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        yield from (Path(place, name) for name in sorted(files) if name.endswith(".py"))


def _own_modules(project: Path) -> list[str]:
    files = (file for kind in KINDS for file in _python_files(project / kind))
    return [module for file in files if (module := _dotted(file, project)) is not None]


def _dotted(file: Path, project: Path) -> str | None:
    """`policy.my_cool_policy` for `<project>/policy/my_cool_policy.py`; None for a file outside such a folder."""
    if not file.is_relative_to(project):
        return None
    parts = list(file.relative_to(project).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    usable = len(parts) > 1 and parts[0] in KINDS and all(part.isidentifier() for part in parts)
    return ".".join(parts) if usable else None


def _entry_points(kind: str) -> dict[str, str]:
    return {point.name: point.value for point in importlib.metadata.entry_points(group=f"menura.{kind}")}


def _not_found(kind: str, name: str, project: Path) -> str:
    names = set(BUILT_IN[kind]) | set(_entry_points(kind))
    broken = []
    for file in _python_files(project / kind):
        classes = _classes(file)
        if isinstance(classes, SyntaxError):
            broken.append(_syntax_message(classes, project))
        else:
            names |= classes
    own = ", ".join(BUILT_IN[kind]) or "none"
    places = f"{kind}/ of the project, Menura's own ({own}), entry points menura.{kind}"
    unread = f". Not readable: {'; '.join(broken)}" if broken else ""
    hint = _exact_hint(name) or did_you_mean(name, sorted(names)) or "."
    return f"no {kind} class is named {name!r}{hint} Looked in {places}{unread}"


def _exact_hint(name: str) -> str:
    """For an exact name that lacks its colon."""
    if name.endswith(".py"):
        return f"; did you mean a class in it, {name}:Class?"
    module, _, class_name = name.rpartition(".")
    return f"; did you mean {module}:{class_name}?" if module else ""


def _classes(file: Path) -> set[str] | SyntaxError:
    try:
        return set(SourceModule(file, None, ()).classes)
    except SyntaxError as error:
        return error


# --- importing -------------------------------------------------------------------------------------------------------


def _loose_package(folder: Path) -> str:
    """A package made for a folder that belongs to no project, so that its files can import their neighbours.

    Its modules' names end in the file's stem, which `transformers` needs to save custom code with the weights.
    """
    name = f"menura_folder_{sha256(str(folder).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def _forget_other_projects(name: str, project: Path) -> None:
    """Drop modules of another project with the same package name, such as its `policy.helpers`."""
    package = name.partition(".")[0]
    if package not in KINDS:
        return
    for loaded, module in list(sys.modules.items()):
        if loaded.partition(".")[0] != package or module is None:
            continue
        file = getattr(module, "__file__", None)
        if file is not None and project not in Path(file).resolve().parents:
            del sys.modules[loaded]


def _import_failure(found: Found, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return _syntax_message(error, found.project)
    frame = last_frame(error, lambda file: _is_users(file, found))
    where = f"{_shown(Path(frame.filename), found.project)}:{frame.lineno}" if frame is not None else found.where
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{where}: {_missing_module(error.name, found.project)}"
    return f"{where}: importing {found.name} failed with {type(error).__name__}: {error}"


def _is_users(file: Path, found: Found) -> bool:
    """Whether a file is the component's, or of its project, rather than of an installed package."""
    if "site-packages" in file.parts:
        return False
    folder = found.file.parent if found.file is not None else found.project
    return found.project in file.parents or folder in file.parents


def _missing_module(name: str, project: Path) -> str:
    top_level = name.partition(".")[0]
    if top_level == "menura" or (project / top_level).is_dir():
        return f"no module is named {name!r}{near_or_known(name, _own_modules(project))}"
    extra = _extra_of(top_level)
    install = f"menura[{extra}]" if extra else top_level.replace("_", "-")
    return f"needs the package {top_level!r}, which is not installed. Install it: pip install '{install}'"


def _extra_of(package: str) -> str | None:
    """The extra of Menura's own that brings a package."""
    try:
        requirements = importlib.metadata.requires("menura") or ()
    except importlib.metadata.PackageNotFoundError:  # in another Python, to which the source is lent
        return None
    for requirement in requirements:
        name, _, marker = requirement.partition(";")
        if "extra ==" in marker and name.replace("-", "_").startswith(package):
            return marker.partition("extra ==")[2].strip(" '\"")
    return None


def _syntax_message(error: SyntaxError, project: Path) -> str:
    file = Path(error.filename) if error.filename else None
    return f"{_shown(file, project)}:{error.lineno}: syntax error: {error.msg}"


def _shown(file: Path | None, project: Path) -> str:
    if file is None:
        return "?"
    return file.relative_to(project).as_posix() if project in file.parents else str(file)
