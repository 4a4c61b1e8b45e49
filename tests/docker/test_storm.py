"""Nobody forges an address, whatever happens to daemon, Engine and firewall. See `storm.py`."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import every_engine, shimmed_engine
from tests.docker.storm import Storm
from tests.support.images import load_bare
from tests.support.process import eventually
from tests.support.served import Served

pytestmark = pytest.mark.server("nft", "python3")


@contextlib.contextmanager
def forging(
    engine_name: str, programs: Path | None = None, iptables: str = "iptables"
) -> Iterator[Storm]:
    """A container, which clients keep asking."""
    with shimmed_engine(engine_name) as engine:
        served = Served(engine, programs)
        try:
            served.start()
            engine.start(**served.environment())
            load_bare(engine, "bare")
            storm = Storm(served, iptables=iptables)
            storm.run()
            with storm.forging():
                storm.some_more()
                yield storm
            engine.remove("one")
            print(served.log[-4000:], engine.log[-4000:])  # shown where a test failed
            assert "internal error" not in served.log
        finally:
            served.end()


@pytest.mark.parametrize("engine_name", every_engine)
def test_nobody_forges_an_address(engine_name: str) -> None:
    with forging(engine_name) as storm:
        for name, happens in storm.events.items():
            happens()
            storm.some_more()
            assert not storm.wrong, f"{name}: {storm.wrong} of {storm.counts}"


@pytest.mark.server("iptables-legacy")
@pytest.mark.parametrize("engine_name", every_engine[:1])
def test_iptables_without_nftables(engine_name: str, tmp_path: Path) -> None:
    """Nothing tells of its changes, and `nft flush ruleset` leaves Docker's rules."""
    program = shutil.which("iptables-legacy")
    assert program is not None
    for name in ("iptables", "ip6tables"):
        for what in ("", "-save", "-restore"):
            (tmp_path / f"{name}{what}").symlink_to(os.path.realpath(program))
    with forging(engine_name, tmp_path, iptables="iptables-legacy") as storm:
        lab = storm.served.engine.lab
        for name in ("a client is banned", "clients are in no allow list", "a daemon takes over"):
            storm.events[name]()
            storm.some_more()
        for _ in range(5):
            storm.host("nft", "flush", "ruleset")
            storm.some_more()
        nat = lab.run("host", "iptables-legacy", "-t", "nat", "-S", "DOCKER").stdout
        assert "--to-destination" in nat, "Docker's rules are there"
        assert not storm.wrong, f"{storm.wrong} of {storm.counts}"
        storm.served.engine.remove("one")
        eventually(lambda: not lab.run("host", "nft", "list", "tables").stdout, "nothing is left")
        for table in ("filter", "mangle"):
            assert "V6FWD" not in lab.run("host", "iptables-legacy", "-t", table, "-S").stdout
        storm.run()
