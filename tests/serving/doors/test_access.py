"""The loopback asks freely, others present a key; a key or certificate that cannot be used is said in one message."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from menura.serving.doors.access import Access, AccessError, check_bind, is_loopback, read_key, tls_context


@pytest.mark.parametrize("header", ["Api-Key secret", "Bearer secret"])
def test_the_key_opens(header: str) -> None:
    assert Access("secret").allows_header(header)


@pytest.mark.parametrize(
    "header",
    ["", "secret", "Api-Key", "Api-Key ", "Api-Key Secret", "Api-Key secret2", "Basic secret", "Bearer \udc80"],
)
def test_nothing_else_does(header: str) -> None:
    assert not Access("secret").allows_header(header)


@pytest.mark.parametrize("token", [None, b"secret", 3, ["secret"], "secre"])
def test_tokens_of_other_kinds(token: object) -> None:
    assert not Access("secret").allows(token)
    assert Access(None).allows(token)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_the_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_bind(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example", ""])
def test_other_addresses_need_one(host: str) -> None:
    with pytest.raises(AccessError, match="expected a key to listen on"):
        check_bind(host, None)
    with pytest.raises(AccessError, match="at least 16 characters to listen on"):
        check_bind(host, "secret")
    check_bind(host, "secret" * 3)


def test_a_key_is_one_word(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("  secret\n")
    assert read_key(file) == "secret"
    for content, got in (
        (b"", "an empty file"),
        (b" \n\n", "an empty file"),
        (b"two words", "2 words"),
        ("schlüssel".encode(), "other characters"),
        (b"\xff\xfe", "no text"),
    ):
        file.write_bytes(content)
        with pytest.raises(AccessError, match=f"expected .*, got {got}"):
            read_key(file)
    with pytest.raises(AccessError, match="Is a directory"):
        read_key(tmp_path)
    with pytest.raises(AccessError, match="No such file"):
        read_key(tmp_path / "none")
    with pytest.raises(AccessError, match="an empty one"):
        check_bind("127.0.0.1", "")


def make_pair(directory: Path, name: str, *options: str) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key, made by openssl."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, *names, *(options or ("-nodes",)), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key


def test_tls_of_a_pair(tmp_path: Path) -> None:
    one = make_pair(tmp_path, "one")
    other = make_pair(tmp_path, "other")
    locked = make_pair(tmp_path, "locked", "-passout", "pass:secret")
    context = tls_context(*one)
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert tls_context(None, None) is None
    for half in ((one[0], None), (None, one[1])):
        with pytest.raises(AccessError, match="expected both --cert and --key"):
            tls_context(*half)
    wrong = [(one[0], other[1]), (one[0], tmp_path / "none"), (one[1], one[0]), (tmp_path, one[1]), locked]
    for certificate, key in wrong:
        with pytest.raises(AccessError, match="expected a certificate and its private key in PEM"):
            tls_context(certificate, key)
