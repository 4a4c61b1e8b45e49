"""Which requests may have the status page: its own names, and no page of another site."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from v6fwd.daemon.view.guard import Guard


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
