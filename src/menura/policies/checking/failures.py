"""What went wrong in the user's code, said with the line and the layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from menura.errors import MenuraError
from menura.user_code import last_frame


class LayerFailure(Exception):
    """An error of the user's code inside one layer of the policy."""


def describe(error: BaseException, file: Path | None, shown: str) -> str:
    """`policy/x.py:12: RuntimeError: …`, the line being the last one in the policy's own file."""
    if isinstance(error, MenuraError):
        return str(error)
    origin = error.__cause__ if isinstance(error, LayerFailure) and error.__cause__ is not None else error
    frame = last_frame(origin, lambda raised_in: raised_in == file)
    where = f"{shown}:{frame.lineno}: " if frame is not None else ""
    if isinstance(error, LayerFailure):
        return f"{where}{error}"
    return f"{where}{type(error).__name__}: {error}"


@contextmanager
def naming_layers(model: nn.Module) -> Iterator[None]:
    """Inside, an error raised while a layer runs becomes a `LayerFailure` that names the layer and its input."""
    running: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
    handles = []
    for name, module in model.named_modules():
        if not name:
            continue

        def enter(module: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
            running.append((name, module, args))

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            running.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if not running:
            raise
        raise LayerFailure(_in_layer(error, *running[-1])) from error
    finally:
        for handle in handles:
            handle.remove()


def _in_layer(error: Exception, name: str, module: nn.Module, args: tuple[Any, ...]) -> str:
    given = next((argument for argument in args if isinstance(argument, Tensor)), None)
    if isinstance(module, nn.Linear) and given is not None and given.shape[-1] != module.in_features:
        width = given.shape[-1]
        return (
            f"layer {name}: expected in_features = {width}, the width of its input {tuple(given.shape)}, "
            f"got {module.in_features}. Write `nn.Linear({width}, {module.out_features})`."
        )
    shape = "" if given is None else f", given {tuple(given.shape)}"
    first_line = str(error).partition("\n")[0]
    return f"layer {name} ({type(module).__name__}{shape}): {type(error).__name__}: {first_line}"
