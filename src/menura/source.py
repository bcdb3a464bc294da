"""Classes read from source with `ast`: where they are, what their constructors take. Nothing is imported or run."""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import importlib.util
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

_CONFIG_ROOTS = ("PretrainedConfig", "PreTrainedConfig")
# Base classes that take no arguments of interest. (A PretrainedConfig would swallow any keyword silently.)
_PLAIN_BASES = (*_CONFIG_ROOTS, "object", "ABC", "Protocol", "Generic", "Module", "Env")
# Big packages whose source holds nothing of a component; reading it would take longer than all else.
_NOT_READ = ("torch", "transformers", "gymnasium", "numpy", "typing", "abc", "collections", "dataclasses")
_FIELD_DECORATORS = ("dataclass", "strict", "define", "frozen")
_MAX_HOPS = 20  # imports followed before giving up: circles of re-exports exist


@dataclass(frozen=True)
class Parameters:
    """What a constructor takes.

    Attributes:
        names: every name that may be given.
        required: those without a default.
        annotations: name -> the annotation's text, where there is one.
        defaults: name -> the default, where it is a literal.
        var_keyword: whether unknown names are taken too.
    """

    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    var_keyword: bool = False

    def inherit(self, base: Parameters) -> Parameters:
        """With what `**kwargs` hands on to a base class. What the base requires, the class may give it itself."""
        added = tuple(name for name in base.names if name not in self.names)
        return Parameters(
            names=self.names + added,
            required=self.required,
            annotations={**base.annotations, **self.annotations},
            defaults={**{name: base.defaults[name] for name in added if name in base.defaults}, **self.defaults},
            var_keyword=base.var_keyword,
        )

    def without(self, names: Collection[str]) -> Parameters:
        """Without parameters that are given in another way."""
        return replace(
            self,
            names=tuple(name for name in self.names if name not in names),
            required=tuple(name for name in self.required if name not in names),
        )


# Of a class whose source cannot be read: anything goes.
UNKNOWN = Parameters(var_keyword=True)


class SourceModule:
    """One parsed file: the names bound at its top level (inside `if` and `try` too)."""

    def __init__(self, file: Path, name: str | None, roots: tuple[Path, ...]) -> None:
        self.file = file
        self.name = name  # dotted
        self.roots = roots  # folders in which absolute imports are looked up before the installed packages
        self.classes: dict[str, ast.ClassDef] = {}
        self.imports: dict[str, tuple[str, str | None]] = {}  # local name -> (module, name in it or None)
        self.other_names: dict[str, ast.stmt] = {}
        self._stars: list[str] = []
        for statement in _flattened(_parse(file, file.stat().st_mtime_ns).body):
            self._bind(statement)

    def _bind(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.ClassDef):
            self.classes[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom):
            module = self._absolute(statement)
            for alias in statement.names:
                if alias.name == "*":
                    self._stars.append(module)
                else:
                    self.imports[alias.asname or alias.name] = (module, alias.name)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                local = alias.asname or alias.name.partition(".")[0]
                self.imports[local] = (alias.name if alias.asname else local, None)
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.other_names[statement.name] = statement
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    self.other_names[target.id] = statement

    def _absolute(self, statement: ast.ImportFrom) -> str:
        """The dotted name an import means. `from .x` in a file without a dotted name means its neighbour `x`."""
        if statement.level == 0:
            return statement.module or ""
        parts = self.name.split(".") if self.name else []
        if self.file.name != "__init__.py":
            parts = parts[:-1]
        parts = parts[: len(parts) - (statement.level - 1)] if statement.level > 1 else parts
        return ".".join([*parts, *([statement.module] if statement.module else [])])

    def find_class(self, name: str, hops: int = 0) -> SourceClass | None:
        """The class a (dotted) name means here, following imports and plain aliases."""
        if hops > _MAX_HOPS:
            return None
        head, _, rest = name.partition(".")
        if not rest and head in self.classes:
            return SourceClass(self, self.classes[head])
        if head in self.imports:
            module_name, attribute = self.imports[head]
            return self._follow(module_name, ".".join(part for part in (attribute, rest) if part), hops)
        alias = self.other_names.get(head)
        if not rest and isinstance(alias, ast.Assign) and isinstance(alias.value, (ast.Name, ast.Attribute)):
            return self.find_class(ast.unparse(alias.value), hops + 1)
        for star in self._stars:
            if rest == "" and (found := self._follow(star, head, hops)) is not None:
                return found
        return None

    def _follow(self, module_name: str, name: str, hops: int) -> SourceClass | None:
        """`name` in the module, where `name` may itself begin with submodules."""
        if module_name.partition(".")[0] in _NOT_READ and not module_name.startswith("transformers.models."):
            return None
        parts = name.split(".") if name else []
        for split in range(len(parts)):
            dotted = ".".join([module_name, *parts[:split]])
            module = open_module(dotted, self.roots)
            if module is not None and (found := module.find_class(".".join(parts[split:]), hops + 1)) is not None:
                return found
        return None

    def defines(self, name: str) -> bool:
        """Whether the name is bound at the top level, in whatever way."""
        return name in self.classes or name in self.imports or name in self.other_names


class Constant(NamedTuple):
    """A literal, and where it stands."""

    value: Any
    file: Path
    line: int


@dataclass(frozen=True)
class SourceClass:
    """A class statement and the module it stands in."""

    module: SourceModule
    node: ast.ClassDef

    def bases(self) -> Iterator[tuple[str, SourceClass | None]]:
        """The name of each base class as written, and the class where its source is found."""
        for base in self.node.bases:
            expression = base.value if isinstance(base, ast.Subscript) else base  # Generic[T]
            name = ast.unparse(expression)
            found = self.module.find_class(name)
            yield name, None if found is not None and found.node is self.node else found  # class X(X)

    def assigned(self, name: str) -> str | None:
        """The (dotted) name that an attribute is set to or annotated with in this class's own body."""
        setting = self._setting(name)
        if setting is None:
            return None
        annotation = setting.annotation if isinstance(setting, ast.AnnAssign) else None
        value = setting.value or annotation
        return ast.unparse(value) if value is not None else None

    def linked_class(self, *attributes: str) -> SourceClass | None:
        """The class that the first of these class attributes names, here or in a base class."""
        for attribute in attributes:
            if (name := self.assigned(attribute)) is not None:
                return self.module.find_class(name.strip("'\""))
        for _, base in self.bases():
            if base is not None and (found := base.linked_class(*attributes)) is not None:
                return found
        return None

    def constant(self, name: str) -> Constant | None:
        """The literal that a class attribute is set to, here or in a base class; None where there is none."""
        setting = self._setting(name)
        if setting is not None:
            literals = _literals({name: setting.value})
            return Constant(literals[name], self.module.file, setting.lineno) if literals else None
        found = (base.constant(name) for _, base in self.bases() if base is not None)
        return next((constant for constant in found if constant is not None), None)

    def _setting(self, name: str) -> ast.Assign | ast.AnnAssign | None:
        """The statement in this class's own body that sets or annotates an attribute."""
        for statement in self.node.body:
            if isinstance(statement, (ast.Assign, ast.AnnAssign)):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    return statement
        return None

    def lacks(self, *attributes: str) -> bool:
        """Whether certainly none of the class attributes is set, here or in any base class but `PreTrainedModel`."""
        if any(self.assigned(attribute) is not None for attribute in attributes):
            return False
        return all(
            base.lacks(*attributes) if base is not None else name.rpartition(".")[2] == "PreTrainedModel"
            for name, base in self.bases()
        )

    def parameters(self) -> Parameters:
        """What the constructor takes: `__init__`'s own, then what its `**kwargs` hands on to the base class.

        The annotated fields of a dataclass, or of a `PretrainedConfig` without `__init__`, count as parameters.
        """
        init = next(
            (item for item in self.node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None
        )
        if init is None:
            inherited = self._base_parameters()
            return _fields(self.node, inherited) if self._has_fields() else inherited
        own = _signature(init)
        if init.args.kwarg is None:
            return own
        if not _only_handed_on(init, init.args.kwarg.arg):
            return own
        return own.inherit(self._base_parameters())

    def _base_parameters(self) -> Parameters:
        for name, base in self.bases():
            if base is not None:
                return base.parameters()
            if name.rpartition(".")[2] not in _PLAIN_BASES:
                return UNKNOWN
        return Parameters()

    def _has_fields(self) -> bool:
        for decorator in self.node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if ast.unparse(called).rpartition(".")[2] in _FIELD_DECORATORS:
                return True
        return self._is_config()

    def _is_config(self) -> bool:
        return any(_is_config_root(name) or (base is not None and base._is_config()) for name, base in self.bases())


def open_module(name: str, roots: Sequence[Path]) -> SourceModule | None:
    """The parsed source of a dotted module, or None when it has none; SyntaxError when it does not parse."""
    file = module_file(name, roots)
    return SourceModule(file, name, tuple(roots)) if file is not None else None


def module_file(name: str, roots: Sequence[Path]) -> Path | None:
    """The file of a dotted module: under one of the roots, else in the installed packages. Imports nothing."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for root in roots:
        if (file := _file_under(root, parts)) is not None:
            return file
    spec = _top_level_spec(parts[0])
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        if (file := _file_under(Path(folder), parts[1:])) is not None:
            return file
    if len(parts) == 1 and spec.origin is not None and spec.origin.endswith(".py"):
        return Path(spec.origin)
    return None


def class_line(file: Path, name: str) -> int | None:
    """The line of `class name` in a file, parsed or not."""
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.replace("(", " ").replace(":", " ").split()
        if words[:2] == ["class", name]:
            return number
    return None


def _top_level_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module put into sys.modules by hand, without a spec
        return None


def _file_under(root: Path, parts: Sequence[str]) -> Path | None:
    target = root.joinpath(*parts)
    package = target / "__init__.py"
    if package.is_file():
        return package
    file = target.with_name(f"{target.name}.py")
    return file if parts and file.is_file() else None


@functools.lru_cache(maxsize=256)
def _parse(file: Path, mtime_ns: int) -> ast.Module:
    return ast.parse(file.read_bytes(), filename=str(file))


def _flattened(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in statements:
        yield statement
        if isinstance(statement, ast.If):
            yield from _flattened([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [inner for handler in statement.handlers for inner in handler.body]
            yield from _flattened([*statement.body, *handlers, *statement.orelse, *statement.finalbody])


def _is_config_root(name: str) -> bool:
    return name.rpartition(".")[2] in _CONFIG_ROOTS


def _signature(init: ast.FunctionDef) -> Parameters:
    arguments = init.args
    positional = [*arguments.posonlyargs, *arguments.args][1:]  # without self
    absent: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*absent, *arguments.defaults, *arguments.kw_defaults]
    given = [*positional, *arguments.kwonlyargs]
    return Parameters(
        names=tuple(argument.arg for argument in given),
        required=tuple(argument.arg for argument, default in zip(given, defaults, strict=True) if default is None),
        annotations={argument.arg: _text(argument.annotation) for argument in given if argument.annotation},
        defaults=_literals({argument.arg: default for argument, default in zip(given, defaults, strict=True)}),
        var_keyword=arguments.kwarg is not None,
    )


def _fields(node: ast.ClassDef, inherited: Parameters) -> Parameters:
    """Annotated class attributes as a dataclass reads them, over those of the base class."""
    annotations, values = {}, {}
    required = list(inherited.required)
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name, annotation = statement.target.id, _text(statement.annotation)
        if annotation.rpartition(".")[2].startswith("ClassVar"):
            continue
        annotations[name], values[name] = annotation, _field_default(statement.value)
        if name in required:
            required.remove(name)
        if statement.value is None or (_is_field(statement.value) and not _field_has_default(statement.value)):
            required.append(name)
    own = tuple(name for name in annotations if name not in inherited.names)
    kept = {name: default for name, default in inherited.defaults.items() if name not in annotations}
    return Parameters(
        names=inherited.names + own,
        required=tuple(required),
        annotations={**inherited.annotations, **annotations},
        defaults={**kept, **_literals(values)},
        var_keyword=inherited.var_keyword,
    )


def _is_field(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2].lower() == "field"


def _field_has_default(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and any(
        keyword.arg in ("default", "default_factory") for keyword in value.keywords
    )


def _field_default(value: ast.expr | None) -> ast.expr | None:
    if isinstance(value, ast.Call) and _is_field(value):
        return next((keyword.value for keyword in value.keywords if keyword.arg == "default"), None)
    return value


def _only_handed_on(init: ast.FunctionDef, kwargs: str) -> bool:
    """Whether `**kwargs` goes to `super().__init__` and nothing else is done with it."""
    uses = sum(isinstance(node, ast.Name) and node.id == kwargs for node in ast.walk(init))
    handed = sum(
        isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("__init__")
        and any(word.arg is None and ast.unparse(word.value) == kwargs for word in node.keywords)
        for node in ast.walk(init)
    )
    return uses == handed > 0


def _text(annotation: ast.expr | None) -> str:
    return ast.unparse(annotation).strip("'\"") if annotation is not None else ""


def _literals(values: Mapping[str, ast.expr | None]) -> dict[str, Any]:
    literals = {}
    for name, value in values.items():
        if value is None:
            continue
        try:
            literals[name] = ast.literal_eval(value)
        except ValueError:
            continue  # computed: not known without running it
    return literals
