"""A dataset shown until the user has seen enough."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

from menura.data.opening import open_dataset
from menura.data.readers.base import Reader
from menura.data.viewing.server import ViewServer, loopback
from menura.data.viewing.viewer import Augmented, Viewer


def view_dataset(
    dataset: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    augmented: Augmented | None = None,
    ready: Callable[[str], object] = print,
) -> None:
    """Serve the page of a dataset until interrupted (Ctrl-C). Nothing is written to the dataset.

    Args:
        dataset: what `open_dataset` takes.
        host: an address of this machine alone: there is no key.
        port: 0 for a free one.
        augmented: of a task, to be shown beside the data.
        ready: called with the page's address once it can be opened.

    Raises:
        ConfigError: an address that others could reach.
        DataError: as `open_dataset`.
        OSError: the port is taken.
    """
    # A copy of a reader shares no open file with it.
    open = partial(copy, dataset) if isinstance(dataset, Reader) else partial(open_dataset, dataset)
    serve(open, host=host, port=port, augmented=augmented, ready=ready)


def serve(
    open: Callable[[], Reader],
    *,
    host: str,
    port: int,
    augmented: Augmented | None,
    ready: Callable[[str], object],
) -> None:
    """`view_dataset` of what `open` opens, each time anew."""
    loopback(host)
    viewer = Viewer(open, augmented=augmented)
    try:
        with ViewServer(viewer, host, port) as server:
            ready(server.url)
            server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        return
    finally:
        viewer.close()
