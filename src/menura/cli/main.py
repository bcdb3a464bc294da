"""The command `menura`. Each command's module is thin: what it needs is imported when it is called, not before."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from menura.cli import (
    check,
    collect,
    compare,
    config,
    control,
    convert,
    data,
    eval,
    new,
    preflight,
    replay,
    reproduce,
    serve,
    train,
)
from menura.cli.words import meant_overrides, split_words
from menura.errors import MenuraError

# Click's, or that of typer's own copy of click in later versions.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]
_NEXT_STEPS = {
    errno.ENOSPC: "Make room and run the same command again; what was finished is kept.",
    errno.EDQUOT: "Make room and run the same command again; what was finished is kept.",
    errno.EACCES: "Choose another output_dir, or set MENURA_CACHE for the cache.",
    errno.EPERM: "Choose another output_dir, or set MENURA_CACHE for the cache.",
    errno.EROFS: "Choose another output_dir, or set MENURA_CACHE for the cache.",
    errno.EADDRINUSE: "Choose another --port.",
}


class _Group(TyperGroup):
    """Turns errors raised on purpose into their message, and Ctrl-C into one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            if not str(stop):  # a training has said where it stopped
                typer.echo("Interrupted.", err=True)
            raise typer.Exit(130) from None
        except _UsageError as error:
            if hasattr(error, "possibilities"):  # no such option
                error.possibilities = meant_overrides(error.option_name, ctx.invoked_subcommand) or error.possibilities
            raise
        except MenuraError as error:
            if os.environ.get("MENURA_DEBUG"):
                raise
            typer.echo(str(error), err=True)
            raise typer.Exit(2) from error
        except OSError as error:
            if error.errno == errno.EPIPE or os.environ.get("MENURA_DEBUG"):
                raise
            typer.echo(_told(error), err=True)
            raise typer.Exit(1) from error


def _told(error: OSError) -> str:
    """What the system refused: a full disk, a folder that is not ours to write, a port in use."""
    if error.errno is None:  # not of the system: transformers raises it for a model that the Hub does not have
        return " ".join(str(error).split())
    where = f"{error.filename}: " if error.filename else ""
    what, number = error.strerror or str(error), error.errno or 0
    if within := re.search(r"(?:errno(?: =)?|os error) (\d+)", what):  # Arrow, HDF5, safetensors: in words of theirs
        number = int(within[1])
        what = os.strerror(number)
    step = _NEXT_STEPS.get(number, "--debug shows where.")
    return f"{where}expected the system to allow it, got: {what}. {step}"


app = typer.Typer(
    cls=_Group,
    name="menura",
    help="Menura: imitation learning for robots. Any value of a task can be overridden: --policy.args.hidden_size 512.",
    epilog="--debug, or MENURA_DEBUG=1, shows where an error was raised.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("eval")(eval.evaluate)
app.command("collect")(collect.collect)
app.command("replay")(replay.replay)
app.command("preflight")(preflight.preflight)
app.command("compare")(compare.compare)
app.command("convert")(convert.convert)
app.command("reproduce")(reproduce.reproduce)
app.add_typer(check.app, name="check")
app.add_typer(data.app, name="data")
app.add_typer(new.app, name="new")
app.command("config")(config.config)
app.command("serve")(serve.serve)
app.command("control")(control.control)


def main(words: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 when it succeeded, 1 when a check failed, 2 when something given was wrong."""
    rest = list(sys.argv[1:] if words is None else words)
    if "--debug" in rest:
        rest.remove("--debug")
        os.environ["MENURA_DEBUG"] = "1"
    rest, overrides = split_words(rest)
    app(rest, prog_name="menura", obj=overrides)


if __name__ == "__main__":
    main()
