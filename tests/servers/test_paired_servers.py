"""Real servers with their lines of docs/servers.md and without, each started once for all tests.

The former is in the host's namespace, where it sees v6fwd at the same address; one daemon leads to
both in every mode.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.daemon import ServeProcess
from tests.support.paired_servers import PAIRED
from tests.support.process import eventually
from tests.support.server_sections import TEXTS, Section, read_section
from tests.support.servers import Server, open_folder
from tests.support.stage import CLIENTS, asking, asking_often, url_host
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V6, CONTAINER_V4, Lab

pytestmark = [pytest.mark.netns, pytest.mark.server("curl", "openssl", "nginx", "setpriv")]

V1, V2, NONE, TRANSPARENT = 8001, 8002, 8003, 8004
"""Ports of the host before the server that fits the mode."""
UNEXPECTED_V1, UNEXPECTED_V2, MISSED = 8011, 8012, 8013
"""Ports before the one that does not."""
PSEUDO = r"2[45][0-9](?:\.[0-9]{1,3}){3}"
"""An address of 240.0.0.0/4: these servers listen on IPv4 alone."""

ALL = {"v1", "v2", "v2-ipv4", "v2-tlvs", "v2-wrong-crc", "v2-local", "v2-wrong-transport",
       "v1-unknown", "v2-split"}  # fmt: skip
V2_ALONE = ALL - {"v1", "v1-unknown", "v2-wrong-transport"}
ENDED, ANSWERED = "ended 20 of 20", "answered 20 of 20"
"""What the line in the log says."""
SERVED, PASSED_OVER = "served", "passed over"
"""There is no line: clients are served, the latter with a header that has no effect."""
SILENT = "silent"
"""There is none: the server waits, and says nothing."""


@dataclass(frozen=True)
class Facts:
    """What a server does: the protocol, the forms that it accepts, the largest header (exact below
    4096 bytes), and what becomes of clients behind a header too many, and behind one too few."""

    speaks: str
    accepted: set[str]
    largest: int
    unexpected_v1: str
    unexpected_v2: str
    missed: str
    shows_client: bool | None = None


FACTS = {
    "MariaDB": Facts("mysql", ALL - {"v2-wrong-transport", "v2-split"} | {"none"}, 256,
                     ANSWERED, ANSWERED, SERVED),
    "coturn": Facts("stun", ALL - {"v2-wrong-transport", "v1-unknown"}, 4096,
                    SILENT, SILENT, ENDED, shows_client=True),
    "InspIRCd": Facts("irc", V2_ALONE, 4096, PASSED_OVER, ANSWERED, ENDED,
                      shows_client=True),
    "ejabberd": Facts("xmpp", ALL - {"v1-unknown", "v2-local"}, 4096, ANSWERED, ANSWERED, ENDED),
    "OpenSMTPD": Facts("smtp", V2_ALONE, 4096, ANSWERED, ANSWERED, SILENT, shows_client=True),
    "hitch": Facts("tls", ALL - {"v2-split"}, 4096, ENDED, ENDED, ENDED),
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A server that reads the header, one that does not, and v6fwd before both."""

    section: Section
    lab: Lab
    reads: Server
    plain: Server
    daemon: ServeProcess

    @property
    def facts(self) -> Facts:
        """What is known of both."""
        return FACTS[self.section.title]

    def ask(self, server: Server, port: int, client: str) -> subprocess.CompletedProcess[str]:
        """Ask a server through one of the ports."""
        return self.lab.run("client", *asking(server, url_host(client, port)))

    def expect(self, server: Server, port: int, what: str) -> None:
        """Let twenty clients ask behind a mode that does not fit."""
        if what is SILENT:
            with pytest.raises(subprocess.TimeoutExpired):
                self.lab.run("client", *asking(server, url_host(CLIENT_V6, port)), timeout=1)
            return
        if what is PASSED_OVER:
            asked = self.ask(server, port, CLIENT_V6)
            assert server.answer() in asked.stdout
            for entry in server.entries(BRIDGE_V4):
                logs(server, entry)
            return
        asked = self.lab.run("client", *asking_often(server, url_host(CLIENT_V6, port), 20))
        if what is SERVED:
            assert asked.stdout.count(server.answer()) == 20
            assert self.told(port) == ""
        else:
            eventually(lambda: self.told(port), "the server is named")
            assert what in self.told(port)
            assert self.told(port) in self.daemon.log

    def told(self, port: int) -> str:
        """What `v6fwd status` says is wrong with a port; "" if nothing is."""
        return str(self.daemon.forward(f"[::]:{port}")["mismatch"])

    def probe(self, target: str, patience: float) -> dict[str, Any]:
        """What `v6fwd probe` on the host says of a server."""
        words = ("probe", target, "--json", "--patience", str(patience))
        probed = self.lab.run("host", sys.executable, "-m", "v6fwd", *words)
        assert probed.returncode == 0, probed.stdout + probed.stderr
        found: dict[str, Any] = json.loads(probed.stdout)
        return found

    def forwards(self) -> list[tuple[int, tuple[str, str]]]:
        """Each port, its target, and its mode."""
        reads = f"{BRIDGE_V4}:{self.reads.port}"
        plain = f"{CONTAINER_V4}:{self.plain.port}"
        return [
            (V1, (reads, "proxy-v1")),
            (V2, (reads, "proxy-v2")),
            (NONE, (plain, "none")),
            (TRANSPARENT, (plain, "transparent")),
            (UNEXPECTED_V1, (plain, "proxy-v1")),
            (UNEXPECTED_V2, (plain, "proxy-v2")),
            (MISSED, (reads, "none")),
        ]

    def configure(self) -> None:
        """Write the daemon's configuration."""
        lines = ["workers = 1", "[control]", f'socket = "{self.daemon.control}"']
        for port, (target, mode) in self.forwards():
            lines += ["[[forward]]", f'listen = "[::]:{port}"', f'target = "{target}"',
                      f'client-ip = "{mode}"']  # fmt: skip
            if mode == "transparent":
                store = self.daemon.config.with_name("pseudo.sqlite")
                lines += [f'target-netns = "{self.lab.namespace("container")}"',
                          f'pseudo-store = "{store}"']  # fmt: skip
        self.daemon.config.write_text("\n".join(lines))


@pytest.fixture(
    scope="module",
    params=[pytest.param(title, marks=pytest.mark.server(kind.program), id=title)
            for title, (kind, _) in PAIRED.items()],
)  # fmt: skip
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    section = read_section(TEXTS[request.param])
    kind, name = PAIRED[section.title]
    daemon = ServeProcess(tmp_path_factory.mktemp("daemon"))
    with Lab() as lab, open_folder() as one, open_folder() as other:
        made = Pair(section, lab, kind(one, {name: section.lines}), kind(other, {}), daemon)
        made.configure()
        made.reads.start(lab, "host")
        made.plain.start(lab)
        try:
            daemon.run(prefix=lab.command("host"))
            yield made
        finally:
            daemon.end()


def logs(server: Server, text: str) -> None:
    logs_like(server, re.escape(text))


def logs_like(server: Server, pattern: str) -> None:
    eventually(lambda: re.search(pattern, server.log), f"the log has {pattern}")


@CLIENTS
@pytest.mark.parametrize(("form", "port"), [("v1", V1), ("v2", V2)])
def test_the_server_logs_the_client(pair: Pair, form: str, port: int, client: str) -> None:
    asked = pair.ask(pair.reads, port, client)
    if form not in pair.facts.accepted:
        assert pair.reads.answer() not in asked.stdout + asked.stderr
        return
    assert pair.reads.answer() in asked.stdout + asked.stderr
    for entry in pair.reads.entries(client):
        logs(pair.reads, entry)
    assert BRIDGE_V4 not in pair.reads.named()


def test_what_the_page_shows(pair: Pair) -> None:
    assert pair.section.mode == "proxy-v2"
    pair.ask(pair.reads, V2, CLIENT_V6)
    logs(pair.reads, pair.section.after)
    pair.ask(pair.plain, NONE, CLIENT_V6)
    logs(pair.plain, pair.section.before)


def test_transparent(pair: Pair) -> None:
    asked = pair.ask(pair.plain, TRANSPARENT, CLIENT_V6)
    assert pair.plain.answer() in asked.stdout + asked.stderr
    for entry in pair.plain.entries("ADDRESS"):
        logs_like(pair.plain, re.escape(entry).replace("ADDRESS", PSEUDO))


def test_probe_of_a_server_that_reads_the_header(pair: Pair) -> None:
    facts = pair.facts
    report = pair.probe(f"{BRIDGE_V4}:{pair.reads.port}", 0.5)
    found = {form["form"] for form in report["forms"] if form["result"] == "accepted"}
    assert (report["speaks"], found) == (facts.speaks, facts.accepted)
    assert report["mode"] == "proxy-v2"
    largest = report["largest_header"]
    assert largest == facts.largest if facts.largest < 4096 else largest >= facts.largest
    (v2,) = (form for form in report["forms"] if form["form"] == "v2")
    assert v2["client_seen"] is facts.shows_client


def test_probe_of_a_server_that_reads_none(pair: Pair) -> None:
    report = pair.probe(f"{CONTAINER_V4}:{pair.plain.port}", 0.3)
    found = {form["form"] for form in report["forms"] if form["result"] == "accepted"}
    assert (report["speaks"], found) == (pair.facts.speaks, {"none"})
    assert report["mode"] == "transparent"


def test_a_line_that_the_server_does_not_expect(pair: Pair) -> None:
    pair.expect(pair.plain, UNEXPECTED_V1, pair.facts.unexpected_v1)


def test_a_header_that_the_server_does_not_expect(pair: Pair) -> None:
    pair.expect(pair.plain, UNEXPECTED_V2, pair.facts.unexpected_v2)


def test_a_header_that_the_server_misses(pair: Pair) -> None:
    pair.expect(pair.reads, MISSED, pair.facts.missed)
