"""The server answers this machine alone, and only what the page asks."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import pytest

from menura.data import view_dataset
from menura.data.viewing import Viewer, ViewServer
from menura.errors import ConfigError


def raw(server: ViewServer, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    """As a client that does not tidy the path up."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    result = answer.status, answer.read()
    connection.close()
    return result


def test_the_page_and_all_it_names(server: ViewServer, ask: Callable[..., Any], painted: Any) -> None:
    status, page = ask(server, "")
    assert status == 200
    assert b"<main>" in page
    for file in painted.page.iterdir():
        assert ask(server, file.name) == (200, file.read_bytes())
    with urlopen(server.url + "viewer.js") as answer:
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "query",
    [
        "episode",
        "episode?episode=-1",
        "episode?episode=1&episode=2",
        "episode?episode=1&more=1",
        "episode?episode=1e3",
        "episode?episode=%D9%A3",
        "episode?episode=999",
        "strip?episode=0",
        "strip?episode=0&number=../1",
        "dataset?x=1",
        "augmented?episode=0&frame=0&first_seed=0&seeds=1",
    ],
)
def test_bad_questions_get_a_400_that_says_why(server: ViewServer, query: str) -> None:
    status, body = raw(server, f"/api/{query}")
    assert status == 400
    assert b'"error": "' in body
    assert b"expected" in body


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/%2e%2e/server.py",
        "/..%2fserver.py",
        "//etc/passwd",
        "/page/../../server.py",
        "/a/b/c",
        "/\\x",
    ],
)
def test_nothing_leads_out_of_the_page(server: ViewServer, path: str) -> None:
    status, body = raw(server, path)
    assert status in (400, 404)
    assert b"error" in body
    assert b"def " not in body


def test_what_is_not_there(server: ViewServer, ask: Callable[..., Any]) -> None:
    assert ask(server, "other.js")[0] == 404
    assert ask(server, "api/files")[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.1:{port}.evil.example"]
)
def test_a_name_made_to_lead_here_is_refused(server: ViewServer, host: str) -> None:
    status, body = raw(server, "/api/dataset", host.format(port=server.server_port))
    assert status == 403
    assert b"pictures" not in body


def test_this_machines_own_names(server: ViewServer) -> None:
    for name in ("127.0.0.1", "localhost"):
        assert raw(server, "/api/dataset", f"{name}:{server.server_port}")[0] == 200


def test_only_questions(server: ViewServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert raw(server, "/api/dataset", method=method)[0] == 501


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.com", "2130706433", ""])
def test_other_addresses_are_refused(painted: Any, host: str) -> None:
    viewer = Viewer(painted.reader)
    with pytest.raises(ConfigError, match=r"expected this machine alone.*there is no key"):
        ViewServer(viewer, host)
    viewer.close()


def test_a_port_that_is_taken(server: ViewServer) -> None:
    with pytest.raises(OSError, match="in use"):
        ViewServer(server.viewer, port=server.server_port)


def test_a_browser_that_goes_away_harms_nobody(
    server: ViewServer, ask: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)) as gone:
        gone.sendall(b"GET /api/strip?episode=0&number=0 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.server_port)
    assert ask(server, "api/dataset")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_as_a_function(painted: Any, ask: Callable[..., Any]) -> None:
    addresses = []

    def ready(url: str) -> None:
        addresses.append(url)
        raise KeyboardInterrupt  # as if Ctrl-C was pressed

    view_dataset(painted.reader(), ready=ready)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", addresses[0])
    with pytest.raises(ConfigError, match="there is no key"):
        view_dataset(painted.reader(), host="0.0.0.0", ready=ready)


def test_looking_needs_no_torch() -> None:
    code = "import sys, menura.data.viewing, menura.data.viewing.examining; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
