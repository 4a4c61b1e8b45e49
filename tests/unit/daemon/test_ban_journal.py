"""The file that keeps bans: what is in it counts, and what others could have written does not."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from v6fwd.daemon.ban_journal import SPARE, BanJournal, journal_path
from v6fwd.model import IPNetwork
from v6fwd.relay.limits.bans import BanTable

NET = ipaddress.ip_network("2001:db8:1::/64")
ONE = ipaddress.ip_network("203.0.113.7")


@pytest.fixture
def table() -> Iterator[BanTable]:
    table = BanTable(lambda: 1000.0)
    yield table
    table.close()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "daemon" / "bans"


@pytest.fixture
def journal(path: Path, told: list[str]) -> BanJournal:
    return BanJournal(path, told.append)


def loaded(path: Path) -> dict[IPNetwork, int]:
    """What a daemon that starts now reads."""
    table = BanTable(lambda: 1000.0)
    try:
        BanJournal(path, pytest.fail).load(table)
        return dict(table)
    finally:
        table.close()


def test_no_file_is_no_ban(journal: BanJournal, table: BanTable, told: list[str]) -> None:
    journal.load(table)
    assert (len(table), told) == (0, [])


def test_bans_are_kept_and_ended(journal: BanJournal, path: Path) -> None:
    assert journal.append([(NET, 0), (ONE, 2000)]) == ""
    assert loaded(path) == {NET: 0, ONE: 2000}
    assert journal.append([(NET, -1), (ONE, 3000)]) == ""
    assert loaded(path) == {ONE: 3000}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_expired_bans_go_when_it_is_tidied(
    journal: BanJournal, table: BanTable, path: Path
) -> None:
    journal.append([(NET, 0), (ONE, 999)])
    journal.load(table)
    assert dict(table) == {NET: 0}
    table.sweep(0, 1)
    journal.tidy(table, at_once=True)
    assert path.read_text() == f"+ {NET} 0\n"


def test_bans_that_are_over_take_no_room(
    journal: BanJournal, table: BanTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v6fwd.relay.limits.bans.MOST", 2)
    over = [ipaddress.ip_network(f"192.0.2.{number}") for number in range(9)]
    journal.append([*((each, 999) for each in over), (NET, 0), (ONE, 1001)])
    journal.load(table)
    assert dict(table) == {NET: 0, ONE: 1001}


def test_it_is_tidied_when_many_lines_mean_nothing(
    journal: BanJournal, table: BanTable, path: Path
) -> None:
    table.add(NET, 0)
    for _ in range(SPARE // 2):
        journal.append([(NET, -1), (NET, 0)])
    journal.append([(NET, 0)])
    journal.tidy(table)
    assert len(path.read_text().splitlines()) == SPARE + 1
    journal.append([(NET, 0), (NET, 0)])
    journal.tidy(table)
    assert path.read_text() == f"+ {NET} 0\n"


@pytest.mark.parametrize(
    "line",
    [
        "+ 2001:db8:1::/64",
        "+ 2001:db8:1::/64 17643",  # cut in a crash of the machine, without its newline
        "+ 2001:db8:1::1/64 0\n",
        "+ 2001:db8:1::/64 99999999999\n",
        "* 2001:db8:1::/64 0\n",
        "\n",
        "\0\0\0\0\n",
        "é\n",
    ],
)
def test_a_line_that_cannot_be_read_is_told(
    journal: BanJournal, table: BanTable, path: Path, told: list[str], line: str
) -> None:
    journal.append([(ONE, 0)])
    with path.open("a") as file:
        file.write(line)
    journal.load(table)
    assert dict(table) == {ONE: 0}
    assert told == [f"1 lines of {path} cannot be read"]


def writable(path: Path) -> None:
    path.chmod(0o622)


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def open_folder(path: Path) -> None:
    path.parent.chmod(0o777)


def given_away(path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize("spoil", [writable, linked, open_folder, given_away])
def test_a_file_that_another_user_could_write_is_not_read(
    journal: BanJournal, table: BanTable, path: Path, told: list[str], spoil: object
) -> None:
    journal.append([(ONE, 0)])
    assert callable(spoil)
    spoil(path)
    journal.load(table)
    assert len(table) == 0
    assert len(told) == 1
    assert told[0].startswith(f"cannot use {path}: ")
    assert told[0].endswith("; nobody in it is banned")


def test_a_folder_of_another_user_is_told(
    journal: BanJournal,
    table: BanTable,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Root without CAP_DAC_OVERRIDE, as the service is, cannot look into it; it starts all the
    same. A daemon with another `user` has made the folder."""

    def refuse(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    journal.load(table)
    assert len(told) == 1
    assert "permission denied" in told[0]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "state").write_text("no folder")
    path = tmp_path / "state" / "daemon" / "bans"
    failure = BanJournal(path, told.append).append([(ONE, 0)])
    assert failure == f"cannot write {path}: not a directory; bans end with this daemon"


def test_a_successor_gets_what_its_predecessor_writes_to_the_end(
    journal: BanJournal, table: BanTable, path: Path
) -> None:
    predecessor = BanJournal(path, pytest.fail)
    predecessor.append([(ONE, 0)])
    journal.load(table)
    predecessor.append([(NET, 0), (ONE, -1)])
    journal.catch_up(table)
    assert dict(table) == {NET: 0}


def test_a_successor_sees_that_its_predecessor_has_tidied(
    journal: BanJournal, table: BanTable, path: Path
) -> None:
    predecessor, bans = BanJournal(path, pytest.fail), BanTable(lambda: 1000.0)
    predecessor.append([(ONE, 0)])
    journal.load(table)
    predecessor.append([(NET, 0), (ONE, -1)])
    bans.add(NET, 0)
    predecessor.tidy(bans, at_once=True)
    journal.catch_up(table)
    assert dict(table) == {NET: 0}
    bans.close()


def test_each_control_socket_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert str(journal_path("/run/v6fwd/control.sock")) == "/var/lib/v6fwd/daemon/bans"
    monkeypatch.setenv("STATE_DIRECTORY", "/state")
    assert str(journal_path("/run/v6fwd/control.sock")) == "/state/daemon/bans"
    assert journal_path("/run/other.sock").name.startswith("bans-")
    assert journal_path("/run/other.sock") != journal_path("/run/another.sock")
