"""`menura serve`: a checkpoint behind the policy server, until it is told to stop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rich.console import Console

from menura.errors import ContractError
from menura.meta_policy import MetaPolicy
from menura.serving.client import is_address
from menura.serving.server import DEFAULT_PORT, PolicyServer


def serve(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    api_key: str | None = None,
    dataset: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Load, verify and warm up a checkpoint, then listen until interrupted.

    Args:
        model: a run or a checkpoint.
        host, port, api_key: as of `PolicyServer`.
        dataset: whose statistics hold, of a policy trained on several datasets.
        trust_remote_code: allow code stored in the checkpoint to run when it is not in the project.

    Raises:
        ContractError: `model` is itself a server's address.
    """
    if is_address(model):
        raise ContractError(
            f"serve: expected a run or a checkpoint, got a server's address {model}. It serves already."
        )
    meta = MetaPolicy.from_pretrained(Path(model), dataset=dataset, trust_remote_code=trust_remote_code)
    asyncio.run(_listen(PolicyServer(meta, host=host, port=port, api_key=api_key), str(model)))


async def _listen(server: PolicyServer, model: str) -> None:
    async with await server.start() as listening:
        Console(stderr=True).print(
            f"{model} answers on ws://{server.host}:{server.port} (Ctrl-C ends it)", highlight=False
        )
        await listening.serve_forever()
