"""The store of pseudo addresses: it survives restarts, and no two processes give one address."""

from __future__ import annotations

import contextlib
import ipaddress
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from v6fwd.cli import main
from v6fwd.client_ip.pseudo_ipv4 import is_pseudo
from v6fwd.errors import RelayError
from v6fwd.model import ip_text
from v6fwd.relay.transparent.pseudo_store import KEEP, PseudoStore, find_pseudo

ONE, SAME, OTHER = (
    ipaddress.IPv6Address(text).packed
    for text in ("2001:db8:1::2", "2001:db8:1::3", "2001:db8:2::2")
)


class Clock:
    """Seconds since 1970 that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file in a folder that is not there yet."""
    return str(tmp_path / "new" / "pseudo.sqlite")


def test_an_address_for_each_network(path: str) -> None:
    store = PseudoStore(path)
    addresses = [store.address_of(packed, 64) for packed in (ONE, SAME, OTHER)]
    assert addresses[0] == addresses[1] != addresses[2]
    assert all(is_pseudo(address) for address in addresses)
    assert store.address_of(ONE, 128) not in (*addresses, store.address_of(SAME, 128))
    store.close()


def test_it_survives_a_restart_and_a_kill(path: str) -> None:
    first = PseudoStore(path)
    address = first.address_of(ONE, 64)
    second = PseudoStore(path)  # the first has not been closed
    assert second.address_of(ONE, 64) == address
    first.close()
    second.close()
    third = PseudoStore(path)
    assert third.address_of(SAME, 64) == address
    third.close()


def test_four_processes_agree(path: str) -> None:
    """Each asks for the same 300 networks, in an order of its own."""
    script = """
import random, sys
from v6fwd.relay.transparent.pseudo_store import PseudoStore
store = PseudoStore(sys.argv[1])
networks = list(range(300))
random.Random(sys.argv[2]).shuffle(networks)
packed = {n: (0x20010db8 << 96 | n << 64).to_bytes(16, "big") for n in networks}
found = {n: store.address_of(packed[n], 64) for n in networks}
print(sorted(found.items()))
store.close()
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, path, str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    said = {process.communicate(timeout=60)[0] for process in processes}
    assert len(said) == 1
    assert len({address for _, address in eval(said.pop())}) == 300


class Uptime:
    """The seconds since a start of the machine, and which start it was, that the test sets."""

    def __init__(self) -> None:
        self.boot, self.at = "first", 1000

    def __call__(self) -> tuple[str, int]:
        return self.boot, self.at


@pytest.fixture
def one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a single pseudo address to be given."""
    monkeypatch.setattr("v6fwd.client_ip.pseudo_ipv4._COUNT", 1)
    monkeypatch.setattr("v6fwd.client_ip.pseudo_ipv4.MOST_PROBES", 1)


def refuses(store: PseudoStore, packed: bytes) -> bool:
    """Whether there is no address for one more network."""
    try:
        store.address_of(packed, 64)
    except RelayError as error:
        return "no pseudo IPv4 address is free" in str(error)
    return False


@pytest.mark.usefixtures("one_address")
def test_an_address_is_free_again_after_its_time(path: str) -> None:
    """Not one second before, however much in demand."""
    uptime = Uptime()
    store = PseudoStore(path, uptime=uptime)
    address = store.address_of(ONE, 64)
    uptime.at += KEEP
    assert refuses(store, OTHER)
    uptime.at += 1
    assert store.address_of(OTHER, 64) == address
    assert [entry.network for entry in find_pseudo(path, address)] == [OTHER[:8] + bytes(8)]
    store.close()


@pytest.mark.usefixtures("one_address")
@pytest.mark.parametrize("jump", [20 * KEEP, -20 * KEEP], ids=["forward", "back"])
def test_a_clock_that_jumps_frees_no_address(path: str, jump: float) -> None:
    clock, uptime = Clock(), Uptime()
    store = PseudoStore(path, now=clock, uptime=uptime)
    address = store.address_of(ONE, 64)
    clock.now += jump
    assert refuses(store, OTHER)
    store.close()
    later = PseudoStore(path, now=clock, uptime=uptime)
    assert refuses(later, OTHER)
    assert later.address_of(ONE, 64) == address
    later.close()


@pytest.mark.usefixtures("one_address")
def test_time_without_the_machine_does_not_count(path: str) -> None:
    """Only the wall clock could tell how long it was off."""
    clock, uptime = Clock(), Uptime()
    store = PseudoStore(path, now=clock, uptime=uptime)
    store.address_of(ONE, 64)
    store.close()
    uptime.boot, uptime.at = "second", 5 * KEEP
    clock.now += 20 * KEEP
    later = PseudoStore(path, now=clock, uptime=uptime)
    uptime.at += KEEP
    assert refuses(later, OTHER)
    uptime.at += 1
    assert not refuses(later, OTHER)
    later.close()


@pytest.mark.usefixtures("one_address")
def test_a_store_of_release_0_1_is_taken_over(path: str) -> None:
    Path(path).parent.mkdir()
    old = sqlite3.connect(path)
    old.executescript(
        """
        create table pseudo (address integer primary key, network blob not null,
            bits integer not null, seen integer not null, proven integer not null,
            unique (network, bits)) strict;
        create index pseudo_age on pseudo (proven, seen);
        create table secret (key blob not null) strict;
        """
    )
    row = (0xF0000001, ONE[:8] + bytes(8), 64, 1)
    old.execute("insert into pseudo values (?, ?, ?, ?, 1)", row)
    old.commit()
    old.close()
    uptime = Uptime()
    store = PseudoStore(path, uptime=uptime)
    assert store.address_of(ONE, 64) == bytes((240, 0, 0, 1))
    assert refuses(store, OTHER)
    store.close()


def test_who_is_seen_keeps_its_address(path: str) -> None:
    clock = Clock()
    store = PseudoStore(path, now=clock)
    address = store.address_of(ONE, 64)
    clock.now += KEEP
    assert store.address_of(ONE, 64) == address
    store.write_seen()
    assert find_pseudo(path, ONE)[0].seen == int(clock.now)
    store.close()


def addresses_left(path: str, networks: list[bytes]) -> list[bool]:
    return [bool(find_pseudo(path, packed)) for packed in networks]


def numbered(first: int, count: int) -> list[bytes]:
    """Addresses in networks of their own."""
    return [(0x20010DB8 << 96 | n << 64).to_bytes(16, "big") for n in range(first, first + count)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores with room for few."""
    monkeypatch.setattr("v6fwd.relay.transparent.pseudo_store.MOST", 20)
    monkeypatch.setattr("v6fwd.relay.transparent.pseudo_store.TRIM_EVERY", 5)


@pytest.mark.usefixtures("small")
def test_forged_sources_push_out_each_other(path: str) -> None:
    """Whoever has made a handshake stays, however long ago; the file does not grow."""
    uptime = Uptime()
    store = PseudoStore(path, uptime=uptime)
    proven, forged = numbered(0, 10), numbered(1000, 200)
    given = [store.address_of(packed, 64) for packed in proven]
    for packed in forged:
        uptime.at += 1
        store.address_of(packed, 64, is_proven=False)
    assert addresses_left(path, proven) == [True] * 10
    left = addresses_left(path, forged)
    assert left[-10:] == [True] * 10
    assert sum(left) <= 15
    assert [store.address_of(packed, 64) for packed in proven] == given
    store.close()


@pytest.mark.usefixtures("small")
def test_the_oldest_go_first(path: str) -> None:
    """Also after they have proven who they are by a later connection."""
    uptime = Uptime()
    store = PseudoStore(path, uptime=uptime)
    early = numbered(0, 1)
    store.address_of(early[0], 64, is_proven=False)
    store.address_of(early[0], 64)
    many = numbered(1000, 60)
    for packed in many:
        uptime.at += 1
        store.address_of(packed, 64)
    assert addresses_left(path, early) == [False]
    left = addresses_left(path, many)
    assert left == sorted(left)
    assert 20 <= sum(left) <= 25
    store.close()


@pytest.mark.usefixtures("small")
def test_who_proves_it_later_stays(path: str) -> None:
    store = PseudoStore(path)
    (client,) = numbered(0, 1)
    address = store.address_of(client, 64, is_proven=False)
    assert store.address_of(client, 64) == address
    for packed in numbered(1000, 60):
        store.address_of(packed, 64, is_proven=False)
    assert addresses_left(path, [client]) == [True]
    store.close()


@pytest.mark.usefixtures("small")
def test_who_was_taken_out_by_another_process_is_asked_anew(path: str) -> None:
    """Its address may be given to somebody else meanwhile."""
    store, other = PseudoStore(path), PseudoStore(path)
    (client,) = numbered(0, 1)
    store.address_of(client, 64, is_proven=False)
    for packed in numbered(1000, 60):
        other.address_of(packed, 64)
    assert addresses_left(path, [client]) == [False]
    store.write_seen()
    store.address_of(client, 64)
    assert addresses_left(path, [client]) == [True]
    store.close()
    other.close()


RUBBISH = {
    "text": b"this is no database, but it is longer than a header\n" * 100,
    "damaged": b"SQLite format 3\0" + b"\xff" * 5000,
}


@pytest.mark.parametrize("content", RUBBISH.values(), ids=RUBBISH.keys())
def test_rubbish_is_set_aside(tmp_path: Path, content: bytes) -> None:
    wrong = tmp_path / "wrong"
    for number in (1, 2):  # what was set aside before stays
        wrong.write_bytes(content)
        told: list[str] = []
        store = PseudoStore(str(wrong), tell=told.append)
        assert is_pseudo(store.address_of(ONE, 64))
        store.close()
        assert (tmp_path / f"wrong.broken-{number}").read_bytes() == content
        assert len(told) == 1
        assert told[0].endswith(f"kept as {wrong}.broken-{number}, a new one begun")


def test_somebody_elses_database_is_set_aside(path: str) -> None:
    Path(path).parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("create table pseudo (name text, used text)")
    other.close()
    told: list[str] = []
    store = PseudoStore(path, tell=told.append)
    assert is_pseudo(store.address_of(ONE, 64))
    store.close()
    assert len(told) == 1


def test_a_file_damaged_while_it_is_open(path: str) -> None:
    """Each of two processes goes on, and what either has given stays with its network."""
    told: list[str] = []
    stores = [PseudoStore(path, tell=told.append) for _ in range(2)]
    given = stores[0].address_of(ONE, 64)
    stores[0]._db.execute("pragma wal_checkpoint(truncate)")
    Path(path).write_bytes(RUBBISH["damaged"])
    for store in stores:
        store._db.execute("pragma shrink_memory")  # else it would not read the file again
    others = [store.address_of(packed, 64) for store in stores for packed in numbered(0, 50)]
    assert len(told) == 1
    assert others[:50] == others[50:]
    assert len({given, *others}) == 51
    assert {store.address_of(ONE, 64) for store in stores} == {given}
    for store in stores:
        store.close()


def test_a_file_that_somebody_removed(path: str) -> None:
    store = PseudoStore(path)
    given = store.address_of(ONE, 64)
    Path(path).unlink()
    store.address_of(OTHER, 64)
    store.close()
    assert [entry.address for entry in find_pseudo(path, ONE)] == [given]


@pytest.mark.parametrize("why", ["read-only", "locked"])
def test_a_store_that_cannot_be_used_now_is_left_alone(path: str, why: str) -> None:
    PseudoStore(path).close()
    before = Path(path).read_bytes()
    holder = sqlite3.connect(path, isolation_level=None)
    with contextlib.ExitStack() as stack:
        stack.callback(holder.close)
        if why == "locked":
            holder.execute("begin exclusive")
        else:
            patched = stack.enter_context(pytest.MonkeyPatch.context())
            opened = sqlite3.connect

            def read_only(name: str, **how: Any) -> sqlite3.Connection:
                found: sqlite3.Connection = opened(f"file:{name}?mode=ro", uri=True, **how)
                return found

            patched.setattr(sqlite3, "connect", read_only)
        with pytest.raises(RelayError, match="cannot use the pseudo address store"):
            PseudoStore(path).address_of(ONE, 64)
    assert [item.name for item in Path(path).parent.glob("*broken*")] == []
    assert Path(path).read_bytes() == before


def test_a_file_that_is_none(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(RUBBISH["text"])
    with pytest.raises(RelayError, match=f"cannot use the pseudo address store {wrong}"):
        find_pseudo(str(wrong), ONE)
    with pytest.raises(RelayError, match="cannot use the pseudo address store /proc/nowhere/x"):
        PseudoStore("/proc/nowhere/x")


def test_it_is_nobody_elses_to_read(path: str) -> None:
    PseudoStore(path).close()
    assert Path(path).stat().st_mode & 0o777 == 0o600


# ---- v6fwd whois -----------------------------------------------------------------------------


def test_whois_both_ways(path: str) -> None:
    store = PseudoStore(path, now=Clock())
    pseudo = str(ipaddress.IPv4Address(store.address_of(ONE, 64)))
    store.close()
    line = f"{pseudo} is 2001:db8:1::/64, seen 2001-09-09 01:46 UTC\n"
    for address in (pseudo, "2001:db8:1::2", "2001:db8:1:0:9::"):
        result = CliRunner().invoke(main, ["whois", address, "--pseudo-store", path])
        assert (result.exit_code, result.output) == (0, line)
    unknown = CliRunner().invoke(main, ["whois", "2001:db8:7::", "--pseudo-store", path])
    assert (unknown.exit_code, unknown.output) == (1, f"2001:db8:7:: is not in {path}\n")


@pytest.mark.parametrize("address", ["192.0.2.1", "nobody", "fe80::1%eth0", ""])
def test_whois_takes_no_other_addresses(address: str, path: str) -> None:
    result = CliRunner().invoke(main, ["whois", address, "--pseudo-store", path])
    assert result.exit_code == 2
    assert f"{address!r} is neither an IPv6 address nor one of 240.0.0.0/4" in result.output


def test_whois_without_a_store(path: str) -> None:
    result = CliRunner().invoke(main, ["whois", "240.1.2.3", "--pseudo-store", path])
    assert (result.exit_code, result.output) == (
        1,
        f"there is no store of pseudo addresses at {path}\n",
    )


def test_whois_gives_the_network_to_ban(path: str) -> None:
    store = PseudoStore(path)
    narrow, wide = (ip_text(store.address_of(ONE, bits)) for bits in (128, 64))
    store.close()
    found = {
        address: CliRunner().invoke(main, ["whois", "--network", address, "--pseudo-store", path])
        for address in (wide, narrow, "203.0.113.7", ip_text(ONE))
    }
    assert [result.exit_code for result in found.values()] == [0, 0, 0, 0]
    network = ip_text(ONE[:8] + bytes(8))
    assert [result.output.strip() for result in found.values()] == [
        f"{network}/64",
        ip_text(ONE),
        "203.0.113.7",
        ip_text(ONE),
    ]
