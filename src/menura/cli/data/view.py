"""`menura data view PATH`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from menura.cli.data.options import Args, Filter, Format, Keys, Source, dataset_spec, opened


def view(
    source: Source,
    host: Annotated[str, typer.Option("--host", help="The address to listen on, of this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 for a free one.")] = 0,
    format: Format = None,
    keys: Keys = None,
    args: Args = None,
    filter: Filter = None,
    augment: Annotated[
        str | None, typer.Option("--augment", help="Show what the augmentations of this task make of the pictures.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no_browser", help="Only print the page's address.")] = False,
) -> None:
    """Look at a dataset in the browser: cameras and plots in step, statistics, and what a check finds."""
    from menura.data.viewing.view import serve

    augmented = None
    if augment is not None:
        from menura.training.augmented import AugmentedFrames

        augmented = AugmentedFrames(augment, dataset_spec(source, format, keys, args, filter))
    serve(
        partial(opened, source, format, keys, args, filter),
        host=host,
        port=port,
        augmented=augmented,
        ready=partial(_tell, browser=not no_browser),
    )


def _tell(url: str, *, browser: bool) -> None:
    """Says where the page is, and opens it where there is a screen: a browser of the terminal would take it over."""
    import os
    import sys
    import webbrowser

    typer.echo(f"{url}  (Ctrl-C ends)")
    if browser and (sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)):
        webbrowser.open(url)
