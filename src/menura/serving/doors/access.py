"""Who may ask a policy server, and how much: the loopback, or whoever has the key; limits; TLS."""

from __future__ import annotations

import hmac
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from menura.errors import MenuraError

#: How a key is sent: as openpi's clients do, or as every HTTP tool can.
_SCHEMES = ("Api-Key ", "Bearer ")
#: Of a key that keeps strangers out, who may try many a second.
SHORTEST_KEY = 16
EXPECTED_KEY = "expected the header Authorization: Api-Key <key>, got another or none"


class AccessError(MenuraError):
    """A server would listen where anyone may ask it, or its key or certificate cannot be used."""


@dataclass(frozen=True)
class Limits:
    """How much a client may ask for, and how long it may take.

    Attributes:
        frame_bytes: of one message, by websocket or ZMQ; four raw 1080p pictures and their state.
        body_bytes: of one JSON message, whose numbers cost many times their length.
        sessions: open at a time, of each door.
        waiting: requests of one connection that wait for their turn.
        handshake_s: until a new connection has said what it wants, and for the body of a request.
        sending_s: until a client takes its answer.
        closing_s: until a client answers the end of its connection.
        idle_s: until a session is forgotten, where there is no connection whose end could end it.
    """

    frame_bytes: int = 32 * 2**20
    body_bytes: int = 16 * 2**20
    sessions: int = 256
    waiting: int = 8
    handshake_s: float = 15.0
    sending_s: float = 10.0
    closing_s: float = 1.0
    idle_s: float = 600.0


class Access:
    """Who may ask.

    Args:
        key: what a request must present; None: nothing.
    """

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.encode()

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return self._key is None

    def allows(self, key: object) -> bool:
        """Whether this is the key, found in a time that does not tell how much of it was right."""
        if self._key is None:
            return True
        return isinstance(key, str) and hmac.compare_digest(key.encode(errors="replace"), self._key)

    def allows_header(self, authorization: str) -> bool:
        """Whether this header `Authorization` presents the key."""
        scheme = next((scheme for scheme in _SCHEMES if authorization.startswith(scheme)), "")
        return self.allows(authorization.removeprefix(scheme) if scheme else None)


def read_key(path: str | Path) -> str:
    """The one word in a file: a key on the command line could be read by everyone on the machine.

    Raises:
        AccessError: the file cannot be read, or does not hold one word.
    """
    try:
        words = Path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise AccessError(f"{path}: expected a file with the key, got {reason}. Write one word into it.") from error
    if len(words) != 1 or not words[0].isascii():
        got = "other characters" if len(words) == 1 else f"{len(words)} words" if words else "an empty file"
        raise AccessError(f"{path}: expected one word of ASCII, the key, got {got}. Write one into it.")
    return words[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_bind(host: str, key: str | None) -> None:
    """Refuse to listen where others can come, without a key that keeps them out.

    Raises:
        AccessError: `host` is not of the loopback and there is no key, or a short one; or the key is empty.
    """
    if key == "":
        raise AccessError("menura serve: expected a key, got an empty one. Write one word into --api_key_file.")
    if key is None and not is_loopback(host):
        raise AccessError(
            f"menura serve: expected a key to listen on {host}, got none. Give --api_key_file, or --host 127.0.0.1."
        )
    if key is not None and len(key) < SHORTEST_KEY and not is_loopback(host):
        raise AccessError(
            f"menura serve: expected a key of at least {SHORTEST_KEY} characters to listen on {host}, got one of "
            f"{len(key)}. Make one: openssl rand -hex 32."
        )


def tls_context(certificate: str | Path | None, private_key: str | Path | None) -> ssl.SSLContext | None:
    """A server's side of TLS 1.2 and later, of a chain of certificates and their key, both PEM; None of neither.

    Raises:
        AccessError: one of the two is missing, a file cannot be read, or they do not belong together.
    """
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        missing = "--key" if private_key is None else "--cert"
        raise AccessError(f"menura serve: expected both --cert and --key, got no {missing}. Give both, or neither.")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # A password is never asked for: a server that waits at a prompt does not serve.
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise AccessError(
            f"--cert {certificate}, --key {private_key}: expected a certificate and its private key in PEM, without a "
            f"password, got: {error}. Make both anew, or give the pair that belongs together."
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the private key has a password")
