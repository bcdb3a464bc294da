"""`menura serve -m RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from menura.cli.options import Dataset, Model, TrustRemoteCode


def serve(
    model: Model,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; any but loopback needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port to listen on.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option("--api_key_file", help="Holds the key that clients must present.", dir_okay=False)
    ] = None,
    dataset: Dataset = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve a policy by openpi's websocket protocol."""
    from menura import api

    api_key = None if api_key_file is None else _read_key(api_key_file)
    api.serve(model, host=host, port=port, api_key=api_key, dataset=dataset, trust_remote_code=trust_remote_code)


def _read_key(path: Path) -> str:
    """The file's one line: a key on the command line could be read by everyone on the machine."""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--api_key_file") from error
    if not key or len(key.split()) > 1:
        raise typer.BadParameter(f"{path}: expected one key, got {len(key.split())} words", param_hint="--api_key_file")
    return key
