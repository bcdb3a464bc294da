"""`menura serve -m RUN`."""

from __future__ import annotations

from typing import Annotated

import typer

from menura.cli.options import Model, TrustRemoteCode


def serve(
    model: Model,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; any but loopback needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port to listen on.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option("--api_key", envvar="MENURA_API_KEY", help="What clients must present.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve a policy by openpi's websocket protocol."""
    from menura import api

    api.serve(model, host=host, port=port, api_key=api_key, trust_remote_code=trust_remote_code)
