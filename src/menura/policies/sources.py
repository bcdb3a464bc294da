"""Hub ids in a policy's arguments: whether they can be read is known before anything is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import repo_folder_name
from transformers import PretrainedConfig

from menura.errors import ConfigError

_REACHED_WITHIN_S = 10
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Arguments that name what is read, such as `pretrained_backbone`, `tokenizer`, `text_encoder`.
_NAMES = re.compile(r"pretrained|backbone|encoder|tokenizer")


def require_sources(config: PretrainedConfig, locate: Callable[[str], str] | None = None) -> None:
    """Ask the Hub once, when a policy would read something of it that this machine has not kept.

    Args:
        config: of the policy that is about to be made.
        locate: `"policy.args.x"` -> `"file:line"`, for the message.

    Raises:
        ConfigError: the Hub cannot be reached; `transformers` would try for minutes, and one file after another.
    """
    missing = [(name, value) for name, value in hub_ids(config) if not _kept(value)]
    if not missing or (problem := _unreachable()) is None:
        return
    name, value = missing[0]
    key = f"policy.args.{name}"
    where = f" ({locate(key)})" if locate is not None and locate(key) else ""
    raise ConfigError(
        f"{key}: expected a directory, or what the Hub has, got {value!r}: no such directory here, not in the Hub's "
        f"cache, and the Hub cannot be reached ({problem}). Connect to the network, fetch it elsewhere "
        f"(hf download {value}) and name its directory, or choose another{where}"
    )


def hub_ids(config: PretrainedConfig) -> Iterator[tuple[str, str]]:
    """(argument, value) of each that can be nothing but a Hub id: `owner/name`, and no directory here."""
    for name, value in vars(config).items():
        if _NAMES.search(name) and isinstance(value, str) and _HUB_ID.fullmatch(value) and not Path(value).exists():
            yield name, value


def _kept(hub_id: str) -> bool:
    return (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")).is_dir()


def _unreachable() -> str | None:
    """Why the Hub, or the mirror that `HF_ENDPOINT` names, does not answer; None where it does."""
    # OSError, and what the HTTP library raises, whichever that is.
    failures = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    try:
        session: Any = get_session()
        session.head(constants.ENDPOINT, timeout=_REACHED_WITHIN_S)
    except failures as problem:
        return str(problem).splitlines()[0] if str(problem) else type(problem).__name__
    return None
