"""The demo says what happened: kept or lost, and fails when the address did not come through."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from v6fwd.cli import main
from v6fwd.demo.show import DemoError, OnLoopback, Place, Shown
from v6fwd.demo.target import common_log_line
from v6fwd.model import Address, ClientIP

LINE = '{} - - [23/Nov/2026:00:21:32 +0000] "GET / HTTP/1.1" 200 12'


@contextlib.contextmanager
def _somewhere() -> Iterator[Place]:
    with contextlib.closing(OnLoopback("a test")) as place:
        yield place


def _pretend(monkeypatch: pytest.MonkeyPatch, logged: dict[ClientIP, str]) -> None:
    def show(place: Place, mode: ClientIP) -> Shown:
        return Shown(mode, LINE.format(logged[mode]), place.client)

    monkeypatch.setattr("v6fwd.cli.demo.find_place", _somewhere)
    monkeypatch.setattr("v6fwd.cli.demo.show", show)


def test_success_shows_both_lines_with_a_word_each(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, {ClientIP.NONE: "172.17.42.1", ClientIP.PROXY_V2: "::1"})
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 0
    none, proxy = result.stdout.splitlines()[1:]
    assert none.split()[0] == "172.17.42.1"
    assert "none: lost" in none
    assert proxy.split()[0] == "::1"
    assert "proxy-v2: kept" in proxy


@pytest.mark.parametrize("seen", ["172.17.42.1", "::11", "::1%lo"])
def test_another_address_is_a_failure(monkeypatch: pytest.MonkeyPatch, seen: str) -> None:
    _pretend(monkeypatch, {ClientIP.NONE: "172.17.42.1", ClientIP.PROXY_V2: seen})
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert "did not come through" in result.stderr


def test_what_goes_wrong_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Shown:
        raise DemoError("the target did not start")

    monkeypatch.setattr("v6fwd.cli.demo.find_place", _somewhere)
    monkeypatch.setattr("v6fwd.cli.demo.show", fail)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert result.stderr == "the demo cannot be shown: the target did not start\n"


def test_the_log_line_is_apaches_common_format() -> None:
    line = common_log_line(Address.of(bytes(15) + b"\1", 5), "GET / HTTP/1.1")
    when = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    assert re.fullmatch(rf'::1 - - {when} "GET / HTTP/1\.1" 200 12', line)
