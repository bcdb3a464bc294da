"""The page and its data over HTTP, for this machine alone. Torch-free.

There is no key, so nobody else may ask: it listens on loopback only, and answers only requests that name it in their
`Host`. A page of another site, whose name was made to lead here, does not.
"""

from __future__ import annotations

import ipaddress
import json
import re
import sys
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from menura.data.viewing.viewer import Viewer
from menura.errors import ConfigError, MenuraError

_PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class ViewServer(ThreadingHTTPServer):
    """Serves one viewer until `shutdown`.

    Args:
        viewer: what is shown.
        host: an address of loopback.
        port: 0 for a free one.

    Raises:
        ConfigError: another address.
        OSError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, viewer: Viewer, host: str = "127.0.0.1", port: int = 0) -> None:
        address = loopback(host)
        self.address_family = AF_INET6 if address.version == 6 else AF_INET
        self.viewer = viewer
        super().__init__((str(address), port), _Handler)
        name = f"[{address}]" if address.version == 6 else str(address)
        self.url = f"http://{name}:{self.server_port}/"
        self.names = {f"{known}:{self.server_port}" for known in (name, "localhost")}

    def server_bind(self) -> None:
        """As its grandparent: the HTTP server asks a name server for this machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, if only this machine can reach it.

    Raises:
        ConfigError: others can.
    """
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ConfigError(
            f"--host: expected this machine alone (127.0.0.1, localhost or ::1), got {host!r}: there is no key. "
            f"From elsewhere: ssh -L 8080:localhost:8080 and --port 8080."
        )
    return address


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True
    timeout = 60
    server: ViewServer

    def do_GET(self) -> None:
        """Every request is one."""
        status, kind, body = self._answer()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told."""

    def _answer(self) -> tuple[HTTPStatus, str, bytes]:
        if self.headers.get("Host") not in self.server.names:
            return _refused(HTTPStatus.FORBIDDEN, f"Host: expected {self.server.url}, got another name.")
        url = urlsplit(self.path)
        if not re.fullmatch(r"/[a-z_]*(/[a-z_]+)?(\.[a-z]+)?", url.path):
            return _refused(HTTPStatus.BAD_REQUEST, "path: expected /api/… or a file of the page.")
        if url.path.startswith("/api/"):
            return self._ask(url.path.removeprefix("/api/"), url.query)
        return _file(url.path.removeprefix("/") or "index.html")

    def _ask(self, name: str, query: str) -> tuple[HTTPStatus, str, bytes]:
        viewer = self.server.viewer
        questions: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
            "dataset": (viewer.dataset, ()),
            "episodes": (viewer.episodes, ()),
            "examination": (viewer.examination.state, ()),
            "episode": (viewer.episode, ("episode",)),
            "table": (viewer.table, ("episode",)),
            "strip": (viewer.strip, ("episode", "number")),
            "augmented": (viewer.augmented, ("episode", "frame", "first_seed", "seeds")),
        }
        if name not in questions:
            return _refused(HTTPStatus.NOT_FOUND, f"/api/{name}: expected one of {list(questions)}.")
        question, parameters = questions[name]
        try:
            answer = question(*_numbers(query, parameters))
        except ConfigError as error:
            return _refused(HTTPStatus.BAD_REQUEST, str(error))
        except MenuraError as error:  # the data is damaged
            return _refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except Exception as error:  # noqa: BLE001 (a user's own dataset or augmentation may raise anything)
            traceback.print_exc()
            return _refused(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        if isinstance(answer, bytes):
            return HTTPStatus.OK, "application/octet-stream", answer
        return HTTPStatus.OK, "application/json", _json(answer)


def _numbers(query: str, names: tuple[str, ...]) -> list[int]:
    """The parameters' values, each given once; ConfigError for anything else."""
    given = parse_qsl(query, keep_blank_values=True)
    wrong = sorted(name for name, _ in given) != sorted(names)
    if wrong or any(not re.fullmatch(r"[0-9]{1,9}", value) for _, value in given):
        raise ConfigError(f"query: expected a whole number for each of {list(names)}, got {query!r}.")
    values = {name: int(value) for name, value in given}
    return [values[name] for name in names]


def _file(name: str) -> tuple[HTTPStatus, str, bytes]:
    """A file of the page; there are no others."""
    path = _PAGE / name
    if "/" in name or not path.is_file():
        return _refused(HTTPStatus.NOT_FOUND, f"/{name}: no such page.")
    return HTTPStatus.OK, f"{_TYPES[path.suffix]}; charset=utf-8", path.read_bytes()


def _refused(status: HTTPStatus, message: str) -> tuple[HTTPStatus, str, bytes]:
    return status, "application/json", _json({"error": message})


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
