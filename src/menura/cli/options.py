"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option("--model", "-m", help="A run or checkpoint.")]
OutputDir = Annotated[Path | None, typer.Option("--output_dir", "-o", help="Where everything is written.")]
Dataset = Annotated[
    str | None,
    typer.Option("--dataset", metavar="NAME", help="Whose statistics hold, for a policy trained on several."),
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust_remote_code", help="Run the code saved with the weights.")]
