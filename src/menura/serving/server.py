"""The policy server: openpi's websocket protocol around a `MetaPolicy`.

The protocol (openpi, `websocket_policy_server.py`): the server sends a metadata frame; then each binary frame is an
observation and is answered by one with `actions`; a text frame is an error. `GET /healthz` answers `OK`.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import http
import ipaddress
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from menura.errors import MenuraError
from menura.meta_policy import MetaPolicy
from menura.processing.rotations import neutral
from menura.serving import codec

DEFAULT_PORT = 8000
#: Four raw 1080p frames and their state; a larger frame closes its connection.
MAX_FRAME_BYTES = 32 * 1024 * 1024
PROTOCOL_VERSION = 1


class PolicyServer:
    """Serves one policy. Each connection is a session; inference runs in a worker, so pings are always answered.

    An answer is the whole chunk for one observation. Where the policy has `n_obs_steps` > 1 the client sends that many,
    with a time axis: only it knows which observations its robot acted on.

    Args:
        meta: the policy; it is asked once before the server listens, so that the first client does not wait.
        host: the address to bind; anything but loopback needs a key.
        port: 0 takes a free one.
        api_key: what clients must send as `Authorization: Api-Key …`.
    """

    def __init__(
        self, meta: MetaPolicy, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT, api_key: str | None = None
    ) -> None:
        if not _is_loopback(host) and not api_key:
            raise MenuraError(
                f"menura serve: expected a key to listen on {host}, got none. Give --api_key_file, or --host 127.0.0.1."
            )
        self.meta = meta
        self.host = host
        self.port = port
        self._key = api_key
        # One worker: the policy is asked by one thread at a time, in the order the requests came.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    async def start(self) -> Server:
        """Warms the policy up and listens. The caller closes what is returned."""
        blank = blank_observation(self.meta)
        await asyncio.get_running_loop().run_in_executor(self._worker, self.meta.predict, blank)
        server: Server = await serve(
            self._session,
            self.host,
            self.port,
            compression=None,
            max_size=MAX_FRAME_BYTES,
            process_request=self._before_handshake,
        )
        self.port = next(iter(server.sockets)).getsockname()[1]
        return server

    def _before_handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._key is not None:
            sent = request.headers.get("Authorization", "")
            if not hmac.compare_digest(sent.encode(), f"Api-Key {self._key}".encode()):
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "expected Authorization: Api-Key <key>\n")
        return None

    def _metadata(self) -> dict[str, Any]:
        return {
            "protocol_version": PROTOCOL_VERSION,
            "features": self.meta.features.to_dict(),
            "chunk_size": self.meta.chunk_size,
            "n_action_steps": self.meta.n_action_steps,
            "n_obs_steps": self.meta.n_obs_steps,
            "observation_offsets": list(self.meta.observation_offsets),
            "required_cameras": list(self.meta.required_cameras),
            "checkpoint_hash": self.meta.checkpoint_hash,
        }

    async def _session(self, connection: ServerConnection) -> None:
        generator = self.meta.generator(None)  # of this session alone
        loop = asyncio.get_running_loop()
        try:
            await connection.send(codec.pack(self._metadata()))
            async for frame in connection:
                start = time.perf_counter()
                try:
                    observation = batched(codec.unpack(frame) if isinstance(frame, bytes) else frame)
                    is_pad = observation.pop("observation_is_pad", None)
                    generators = None if generator is None else [generator]
                    predict = functools.partial(
                        self.meta.predict, observation, generator=generators, observation_is_pad=is_pad
                    )
                    actions = await loop.run_in_executor(self._worker, predict)
                except MenuraError as error:
                    await connection.send(str(error))
                    await connection.close(1011, "the observation was refused")
                    return
                infer_ms = (time.perf_counter() - start) * 1e3
                timing = {"infer_ms": infer_ms}
                answer = {"actions": actions[0], "policy_timing": timing, "server_timing": timing}
                await connection.send(codec.pack(answer))
        except ConnectionClosed:
            return  # a client that leaves ends its session and nothing else


def batched(observation: Any) -> dict[str, Any]:
    """One observation as a client sends it -> a batch of one.

    Read are `state`, `images`, `task` (openpi says `prompt`), `timestep` and `observation_is_pad`. Arrays are copied:
    those of a frame are read-only views of its bytes.
    """
    if not isinstance(observation, Mapping):
        raise codec.CodecError(
            f"observation: expected a map with state, images, task, got {type(observation).__name__}."
        )
    batch: dict[str, Any] = {}
    for key in ("state", "timestep", "observation_is_pad"):
        if key in observation:
            batch[key] = np.array(observation[key])[None]
    images = observation.get("images", {})
    if not isinstance(images, Mapping):
        raise codec.CodecError(f"observation.images: expected a map by camera, got {type(images).__name__}.")
    batch["images"] = {camera: np.array(image)[None] for camera, image in images.items()}
    task = observation.get("task", observation.get("prompt"))
    if task is not None:
        batch["task"] = [str(task)]
    return batch


def blank_observation(meta: MetaPolicy) -> dict[str, Any]:
    """A batch of one black, neutral observation of the shapes the policy expects: what warms it up."""
    time = (1,) if meta.n_obs_steps == 1 else (1, meta.n_obs_steps)
    features = meta.features
    state = np.zeros(0, np.float32) if features.state is None else neutral(features.state)
    return {
        "state": np.tile(state, (*time, 1)),
        "images": {
            name: np.zeros((*time, camera.height, camera.width, 3), np.uint8)
            for name, camera in features.cameras.items()
        },
        "task": [""],
        "timestep": np.zeros(1, np.int64),
    }


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
