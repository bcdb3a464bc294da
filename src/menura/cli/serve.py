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
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of websockets and HTTP; 0 takes a free one.")
    ] = 8000,
    zmq_port: Annotated[
        int | None, typer.Option("--zmq_port", min=0, max=65535, help="Where GR00T's ZMQ clients are answered, too.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api_key_file", help="Holds the key that clients must present.", dir_okay=False)
    ] = None,
    cert: Annotated[
        Path | None, typer.Option("--cert", metavar="PEM", help="The certificate, for TLS (wss, https).")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="PEM", help="The certificate's private key.")] = None,
    keys: Annotated[
        str | None,
        typer.Option("--keys", metavar="NAME", help="What clients call things: droid, libero, aloha, a YAML."),
    ] = None,
    max_batch: Annotated[int, typer.Option("--max_batch", min=1, help="Requests computed together at most.")] = 8,
    max_wait_ms: Annotated[
        float, typer.Option("--max_wait_ms", min=0, help="How long a request waits for others to be computed with.")
    ] = 2.0,
    max_queue: Annotated[
        int, typer.Option("--max_queue", min=1, help="Requests that may wait; further ones are told it is busy.")
    ] = 64,
    dataset: Dataset = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve a policy: openpi's websocket protocol, HTTP with JSON and, with --zmq_port, GR00T's ZMQ."""
    from menura import api

    api.serve(
        model,
        host=host,
        port=port,
        zmq_port=zmq_port,
        api_key_file=api_key_file,
        certificate=cert,
        private_key=key,
        keys=keys,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        max_queue=max_queue,
        dataset=dataset,
        trust_remote_code=trust_remote_code,
    )
