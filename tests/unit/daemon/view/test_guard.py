"""Which requests may have the status page: its own names, and no page of another site."""

from __future__ import annotations

import base64
from http import HTTPStatus
from pathlib import Path

import pytest

from v6fwd.daemon.view.guard import Guard, read_password
from v6fwd.errors import RelayError


def answer(*fields: str, path: str = "/status", name: str = "v6fwd.example") -> HTTPStatus | None:
    head = "\r\n".join([f"GET {path} HTTP/1.1", *fields, "", ""])
    return Guard(name)(path, head.encode("latin-1"))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:9464", "LOCALHOST.", "127.0.0.1", "127.0.0.1:9464", "[::1]"),
        *("[::1]:9464", "[2001:db8::1]:80", "192.0.2.1", "v6fwd.example", "V6fwd.Example.:9464"),
    ],
)
def test_our_names(host: str) -> None:
    assert answer(f"Host: {host}") is None


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "v6fwd.example.org"),
        *(
            "[::1].evil.example",
            "[evil.example]",
            "::1:9464",
            "",
            ":9464",
            "[]",
            "localhost:x",
            ".",
        ),
        *("[127.0.0.1]", "127.1", "0x7f000001", "user@localhost", "localhost/", "lo\xc3calhost"),
    ],
)
def test_other_names(host: str) -> None:
    assert answer(f"Host: {host}") is HTTPStatus.MISDIRECTED_REQUEST


def test_one_host_is_wanted() -> None:
    assert answer() is HTTPStatus.BAD_REQUEST
    assert answer("Host: localhost", "host: evil.example") is HTTPStatus.BAD_REQUEST
    assert answer("Host : localhost") is HTTPStatus.BAD_REQUEST


def test_without_a_name_of_its_own() -> None:
    assert answer("Host: localhost", name="") is None
    assert answer("Host: ", name="") is HTTPStatus.MISDIRECTED_REQUEST


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_may_lead_here_and_no_more(site: str) -> None:
    host = "Host: localhost"
    assert answer(host, f"Sec-Fetch-Site: {site}") is HTTPStatus.FORBIDDEN
    mode = "Sec-Fetch-Mode: cors"
    assert answer(host, f"Sec-Fetch-Site: {site}", mode) is HTTPStatus.FORBIDDEN
    assert answer(host, f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: navigate") is None
    assert answer(host, "Sec-Fetch-Site: same-origin") is None


def test_programs_may_use_any_name() -> None:
    assert answer("Host: prometheus.example", path="/metrics") is None
    assert answer(path="/healthz") is None


# ---- the password ----------------------------------------------------------------------------

PASSWORD = "correct horse: battery"


def with_password(*fields: str, path: str = "/status") -> HTTPStatus | None:
    head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *fields, "", ""])
    return Guard("", PASSWORD)(path, head.encode("latin-1"))


def basic(pair: str) -> str:
    return f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize("user", ["", "admin", "me"])
def test_the_password_is_right(user: str) -> None:
    assert with_password(basic(f"{user}:{PASSWORD}")) is None
    assert with_password(basic(f"{user}:{PASSWORD}").replace("Basic", "bAsIc")) is None


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [basic(f"me:{PASSWORD} ")],
        [basic("me:")],
        [basic(PASSWORD)],
        [basic("")],
        ["Authorization: Basic !!!"],
        ["Authorization: Basic"],
        [basic(f"me:{PASSWORD}").replace("Basic", "Bearer")],
        [basic(f"me:{PASSWORD}")] * 2,
        [f"Authorization: {PASSWORD}"],
    ],
)
def test_the_password_is_wrong(fields: list[str]) -> None:
    assert with_password(*fields) is HTTPStatus.UNAUTHORIZED


def test_a_name_of_ours_is_wanted_first() -> None:
    """Else a page of another site could have the browser ask for the password."""
    head = b"GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert Guard("", PASSWORD)("/status", head) is HTTPStatus.MISDIRECTED_REQUEST


def test_programs_need_no_password() -> None:
    assert with_password(path="/metrics") is None


def test_a_password_is_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    file.chmod(0o640)
    assert read_password(str(file)) == "0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("0123456789abcdef", 0o644, "others may read or write it; chmod 600"),
        ("0123456789abcdef", 0o620, "others may read or write it; chmod 600"),
        ("0123456789abcde", 0o600, "it needs one line of 16 to 200 characters"),
        ("0" * 201, 0o600, "it needs one line of 16 to 200 characters"),
        ("01234567\n89abcdef", 0o600, "it needs one line of 16 to 200 characters"),
        ("", 0o600, "it needs one line of 16 to 200 characters"),
    ],
)
def test_a_password_is_not_taken(tmp_path: Path, text: str, mode: int, why: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(RelayError, match=f"^cannot use token-file {file}: {why}"):
        read_password(str(file))


def test_a_password_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RelayError, match="no such file"):
        read_password(str(tmp_path / "token"))
