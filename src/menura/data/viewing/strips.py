"""Strips: the frames that follow one another, of all cameras, as JPEGs in one message. Torch-free.

    4 bytes: the length of the header, little-endian · the header, JSON · the JPEGs, one after the other
    header: {"start": 32, "stop": 48, "cameras": [{"sizes": [bytes of each frame]} or {"error": why there are none}]}

The page asks for strips ahead of what it shows, so that playing waits neither for round trips nor for the decoder. A
frame is found by its number, which a browser's own video player does not promise.
"""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from threading import Lock
from typing import Any

from menura.data.pictures import encode_jpeg
from menura.data.viewing.episodes import Episodes
from menura.errors import MenuraError

#: Frames of a strip.
STRIP = 16
_KEPT_BYTES = 256_000_000


class Strips:
    """The strips of a dataset, made when asked for; those used last are kept, up to 256 MB of them."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes = 0

    def strip(self, episode: int, number: int) -> bytes:
        """Frames `16 · number …` of an episode, as the module says; the last strip may be shorter."""
        key = (episode, number)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        made = self._make(episode, number)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += len(made)
            while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made

    def _make(self, episode: int, number: int) -> bytes:
        start, stop = STRIP * number, min(STRIP * (number + 1), len(self._episodes[episode]))
        cameras = [self._camera(episode, name, start, stop) for name in self._episodes.reader.features.cameras]
        header = {"start": start, "stop": stop, "cameras": [told for told, _ in cameras]}
        encoded = json.dumps(header).encode()
        return b"".join([struct.pack("<I", len(encoded)), encoded, *(pictures for _, pictures in cameras)])

    def _camera(self, episode: int, camera: str, start: int, stop: int) -> tuple[dict[str, Any], bytes]:
        """What the header says of a camera, and its JPEGs. A damaged one leaves the others to be seen."""
        try:
            pictures = [encode_jpeg(frame) for frame in self._episodes.frames(episode, camera, start, stop)]
        except MenuraError as error:
            return {"error": str(error)}, b""
        return {"sizes": [len(picture) for picture in pictures]}, b"".join(pictures)
