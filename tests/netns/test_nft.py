"""IPv4 clients of a published port: Docker's rule, and ours before it."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import eventually
from tests.support.stage import PORT, Stage
from v6fwd.demo.lab import CLIENT_V4, CONTAINER_V4, HOST_V4
from v6fwd.doctor.facts import Port
from v6fwd.doctor.firewall import Packet, Way
from v6fwd.doctor.nftables import dropped_by_nft

pytestmark = [pytest.mark.netns, pytest.mark.server("nft", "socat")]

DOCKERS_RULES = f"""
    add table ip docker
    add chain ip docker prerouting {{ type nat hook prerouting priority -100; }}
    add chain ip docker output {{ type nat hook output priority -100; }}
    add rule ip docker prerouting fib daddr type local meta l4proto {{ tcp, udp }} \
        th dport {PORT} dnat to {CONTAINER_V4}:80
    add rule ip docker output fib daddr type local meta l4proto {{ tcp, udp }} \
        th dport {PORT} dnat to {CONTAINER_V4}:80
"""
TABLES = ("v6fwd", "v6fwd-guard")
ASK = Path(__file__).parents[1] / "docker" / "ask.py"


class Published:
    """A port that is published as Docker does it, and v6fwd's socket on the host."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        lab = stage.lab
        lab.run("host", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward").check_returncode()
        lab.run("host", "nft", "-f", "-", input=DOCKERS_RULES).check_returncode()
        say = "SYSTEM:echo from $SOCAT_PEERADDR; cat"
        lab.start("container", "socat", "TCP4-LISTEN:80,fork,reuseaddr", say)
        lab.start("container", "socat", "UDP4-RECVFROM:80,fork", say)
        stage.start_forward(
            *(f"0.0.0.0:{PORT}", f"{CONTAINER_V4}:80", "--client-ip", "proxy-v1"),
        )

    def ask(self, protocol: str, host: str = HOST_V4, source: str = "client") -> str:
        """What a client is told."""
        asked = self.stage.lab.run(source, sys.executable, str(ASK), protocol, host, str(PORT))
        assert asked.returncode == 0, asked.stderr
        return asked.stdout.strip()

    def gets_in(self, source: str = "client", protocol: str = "tcp") -> bool:
        """Whether a client reaches the container, or anybody, within two seconds."""
        words = ("socat", "-T2", "-", f"{protocol}4:{HOST_V4}:{PORT},connect-timeout=2")
        asked = self.stage.lab.run(source, *words, input="hello")
        return "from" in asked.stdout

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call methods of RedirectTable on the host, one after the other."""
        lines = [
            "from v6fwd.docker.nft import Guarded, RedirectTable",
            "from v6fwd.model import Endpoint, Protocol",
        ]
        lines += [
            "tcp, udp = Protocol",
            "table = RedirectTable()",
            *(f"print({word})" for word in words),
        ]
        done = self.stage.lab.run("host", sys.executable, "-c", "\n".join(lines))
        assert done.returncode == 0, done.stderr
        return done

    def sees(self, host: str = HOST_V4, source: str = "client") -> str:
        """As whom the container sees a TCP client, and what it is told first."""
        return self.ask("tcp", host, source)


@pytest.fixture
def published(stage: Stage) -> Published:
    return Published(stage)


def endpoint(host: str = "0.0.0.0", protocol: str = "tcp") -> str:
    return f"Endpoint({host!r}, {PORT}, protocol={protocol})"


def test_a_port_and_back(published: Published) -> None:
    direct = f"from {CLIENT_V4} hello"
    assert published.sees() == direct
    published.call("table.reset()", f"table.add({endpoint()})", f"table.add({endpoint()})")
    assert f"PROXY TCP4 {CLIENT_V4} {HOST_V4} " in published.sees()
    assert published.ask("udp") == direct, "the other protocol goes on as before"
    published.call(f"table.remove({endpoint()})", f"table.remove({endpoint()})")
    assert published.sees() == direct


def test_udp(published: Published) -> None:
    lab = published.stage.lab
    published.call("table.reset()", f"table.add({endpoint(protocol='udp')})")
    lab.start("host", "socat", f"UDP4-RECVFROM:{PORT},fork", "SYSTEM:echo on the host; cat")
    assert published.ask("udp") == "on the host hello"
    published.call("table.close()")


def test_one_address(published: Published) -> None:
    published.call("table.reset()", f"table.add({endpoint('192.0.2.1')})")
    assert published.sees() == f"from {CLIENT_V4} hello"
    published.call(f"table.add({endpoint(HOST_V4)})")
    assert f"PROXY TCP4 {CLIENT_V4} {HOST_V4} " in published.sees()


def test_clients_on_the_host_itself(published: Published) -> None:
    published.call(f"table.reset([{endpoint('::')}])")
    assert f"PROXY TCP4 {HOST_V4} {HOST_V4} " in published.sees(source="host")


def test_what_a_crash_has_left(published: Published) -> None:
    published.call(
        "table.reset()", "table.add(*(Endpoint('0.0.0.0', port) for port in range(5000, 5200)))"
    )
    published.call(f"table.reset([{endpoint()}, {endpoint(protocol='udp')}])")
    found = published.call("sorted(map(str, table.left_behind()))").stdout
    assert ast.literal_eval(found) == [f"0.0.0.0:{PORT}", f"0.0.0.0:{PORT}/udp"]
    published.call("table.close()", "table.close()")
    tables = published.stage.lab.run("host", "nft", "list", "tables").stdout
    assert "v6fwd" not in tables
    assert "docker" in tables, "nobody else's table is touched"


def guarded(port: int = PORT, protocol: str = "tcp") -> str:
    """Docker's way from this port of the host to the container's."""
    return f"Guarded({port}, Endpoint({CONTAINER_V4!r}, 80, protocol={protocol}))"


@pytest.mark.parametrize("source", ["client", "host"])
def test_nobody_gets_in_while_the_redirect_is_away(published: Published, source: str) -> None:
    """Somebody has deleted the first table, and Docker's rule is in charge."""
    published.call("table.reset()", f"table.add({endpoint()}, {guarded()})")
    held = published.stage.lab
    held.run("host", "nft", "delete", "table", "ip", "v6fwd").check_returncode()
    assert not published.gets_in(source)
    published.call(f"table.remove({guarded()})" if source == "host" else "table.close()")
    assert published.gets_in(source)


@pytest.mark.parametrize(
    "other", [guarded(PORT + 1), guarded(protocol="udp"), guarded().replace("80,", "81,")]
)
def test_other_ways_are_not_guarded(published: Published, other: str) -> None:
    """A container's port may be published twice, and the other one in mode `none`."""
    published.call("table.reset()", f"table.add({other})")
    assert published.gets_in()
    assert published.gets_in(protocol="udp") is ("udp" not in other)


def test_doctor_finds_nothing_wrong_with_it(published: Published) -> None:
    published.call("table.reset()", f"table.add({endpoint()}, {guarded()})")
    listed = published.stage.lab.run("host", "nft", "-j", "list", "ruleset").stdout
    ours = [item for item in json.loads(listed)["nftables"] if "v6fwd" in str(item)]
    assert len(ours) > 8
    for way in Way:
        packet = Packet(Port(80), frozenset({"docker0"}), is_ipv6=False, way=way)
        assert list(dropped_by_nft(ours, packet)) == []


def test_connections_of_before_go_on(published: Published) -> None:
    talk = published.stage.lab.start(
        "client", "socat", "-", f"TCP4:{HOST_V4}:{PORT}",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert talk.stdout is not None
    assert talk.stdout.readline() == f"from {CLIENT_V4}\n"
    published.call(f"table.reset([{endpoint()}, {guarded()}])")
    assert talk.communicate("still here\n", timeout=10)[0] == "still here\n"


KEEPER = f"""
import asyncio
from v6fwd.docker.ipv4_redirect import Ipv4Redirect
from v6fwd.log import Log
from v6fwd.model import Endpoint
async def main():
    redirect = Ipv4Redirect(Log())
    redirect.set([Endpoint("0.0.0.0", {PORT})])
    print("set", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "command",
    [
        ("flush", "ruleset"),
        ("delete", "table", "ip", "v6fwd"),
        ("delete", "table", "ip", "v6fwd-guard"),
        ("flush", "chain", "ip", "v6fwd", "prerouting"),
        ("flush", "set", "ip", "v6fwd", "any-address"),
    ],
    ids="-".join,
)
def test_what_others_delete_is_restored(published: Published, command: tuple[str, ...]) -> None:
    """The kernel tells of it, so nobody waits for a timer."""
    lab = published.stage.lab
    keeper = lab.start("host", sys.executable, "-c", KEEPER, stdout=subprocess.PIPE, text=True)
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "set\n"

    def tables() -> list[str]:
        listed = [lab.run("host", "nft", "list", "table", "ip", each) for each in TABLES]
        return [each.stdout for each in listed]

    before = tables()
    lab.run("host", "nft", *command).check_returncode()
    eventually(lambda: tables() == before, "the tables are as they were", patience=3)
    assert f"PROXY TCP4 {CLIENT_V4} {HOST_V4} " in published.sees()


WITHOUT_IPTABLES = f"""
import asyncio, os, sys
from v6fwd.docker.adopted_ports import AdoptedPort
from v6fwd.docker.ipv4_clients import Ipv4Clients
from v6fwd.log import Log
from v6fwd.model import ClientIP, Endpoint, Forward
os.environ["PATH"] = sys.argv[1]
async def main():
    clients = Ipv4Clients(Log())
    listen, target = Endpoint("0.0.0.0", {PORT}), Endpoint("{CONTAINER_V4}", 80)
    clients.scanned([AdoptedPort(None, Forward(listen, target, ClientIP.PROXY_V1), None, True)])
    print("set", flush=True)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, gone.set)
    await gone.wait()
    clients.close(keep=False)
asyncio.run(main())
"""


def test_who_cannot_be_judged_is_dropped(published: Published, tmp_path: Path) -> None:
    """Without iptables, DOCKER-USER cannot be asked; where Docker made none, nobody need ask it."""
    nft = shutil.which("nft")
    assert nft is not None
    (tmp_path / "nft").symlink_to(nft)
    lab = published.stage.lab
    keeper = lab.start(
        "host", sys.executable, "-c", WITHOUT_IPTABLES, str(tmp_path),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "set\n"
    assert f"PROXY TCP4 {CLIENT_V4} {HOST_V4} " in published.sees()
    rules = "add table ip filter; add chain ip filter DOCKER-USER"
    lab.run("host", "nft", rules).check_returncode()
    listing = ("nft", "list", "table", "ip", "v6fwd")
    redirects = re.compile(rf"elements = .*\b{PORT}\b")
    eventually(
        lambda: not redirects.search(lab.run("host", *listing).stdout), "the redirect is gone"
    )
    assert not published.gets_in()
    lab.run("host", "nft", "delete", "chain", "ip", "filter", "DOCKER-USER").check_returncode()
    eventually(lambda: redirects.search(lab.run("host", *listing).stdout), "the redirect is back")
    assert f"PROXY TCP4 {CLIENT_V4} {HOST_V4} " in published.sees()
    _, log = keeper.communicate("", timeout=20)
    assert f"0.0.0.0:{PORT}: IPv4 clients are dropped, as the rules of DOCKER-USER" in log


def test_errors_in_one_line(published: Published) -> None:
    script = (
        "import os, sys\nfrom v6fwd.docker.nft import RedirectTable\n"
        "from v6fwd.model import Endpoint\n"
        "from v6fwd.relay.sockets import RelayError\n"
        "for path in (os.environ['PATH'], '/nonexistent'):\n"
        "    os.environ['PATH'] = path\n"
        "    try:\n        RedirectTable().add(Endpoint('0.0.0.0', 80))\n"
        "    except RelayError as error:\n        print(error)\n"
    )
    told = published.stage.lab.run("host", sys.executable, "-c", script).stdout.splitlines()
    assert len(told) == 2
    assert told[0].startswith("nft refuses v6fwd's rules: ")
    assert told[1] == "proxy-* needs the command nft (package nftables) for IPv4"
