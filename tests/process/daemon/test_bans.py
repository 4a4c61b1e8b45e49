"""`v6fwd ban`, `unban`, `bans` and `flows --kill` with a daemon of two workers.

Clients are those that PROXY headers name: nobody bans loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import ServeProcess
from tests.support.process import PATIENCE, eventually
from tests.support.rig import reset, was_reset
from tests.support.site import Site
from v6fwd.daemon.ask import AskError, ask

CLIENT, OTHER = "2001:db8:1::2", "2001:db8:2::2"
KEYS = '[defaults]\naccept-proxy = "::1"\nclient-ip = "none"'


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where daemons keep their bans."""
    folder = tmp_path / "state"
    monkeypatch.setenv("STATE_DIRECTORY", str(folder))
    return folder


class Town:
    """A daemon whose clients come through a load balancer."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.daemon = site.daemon
        self._ends = threading.Event()
        self._targets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        """Answer each flow with what it says."""
        while not self._ends.is_set():
            with contextlib.suppress(OSError):
                target, _ = self.site.one.accept()
                target.settimeout(PATIENCE)
                self._targets.append(target)
                target.sendall(target.recv(100))

    def close(self) -> None:
        """Answer nobody any more."""
        self._ends.set()
        socket.create_connection(self.site.one.getsockname(), PATIENCE).close()
        self._accepting.join()
        for target in self._targets:
            target.close()

    def come(self, client: str = CLIENT) -> socket.socket:
        """A client, as the load balancer names it."""
        sock = self.site.connect()
        family = 6 if ":" in client else 4
        to = "2001:db8::1" if family == 6 else "203.0.113.1"
        sock.sendall(f"PROXY TCP{family} {client} {to} 5 80\r\nhello".encode())
        return sock

    def is_served(self, client: str = CLIENT) -> bool:
        """Whether a new client gets an answer; if not, it is reset."""
        sock = self.come(client)
        try:
            if answer := sock.recv(5):
                return answer == b"hello"
        except ConnectionResetError:
            return False
        raise AssertionError("closed, not reset")

    def is_refused_by_all(self, client: str = CLIENT) -> bool:
        """Whether many new clients are reset, and each worker has met some of them."""
        return not any(self.is_served(client) for _ in range(20))

    def say(self, *words: str) -> str:
        """Run a command that must go well; gives what it printed."""
        result = self.daemon.command_line(*words)
        assert result.exit_code == 0, result.output
        return str(result.output)

    def refused(self) -> int:
        return int(self.daemon.forward(self.site.listen)["refused"].get("banned", 0))


@pytest.fixture
def town(site: Site) -> Iterator[Town]:
    site.run(more=KEYS)
    town = Town(site)
    yield town
    town.close()


def test_a_ban_meets_new_clients_and_live_flows(town: Town) -> None:
    banned, other = town.come(), town.come(OTHER)
    assert banned.recv(5) == other.recv(5) == b"hello"
    said = town.say("ban", CLIENT)
    assert said == f"{CLIENT} is banned permanently\n1 flow reset\n"
    assert was_reset(banned)
    assert town.is_refused_by_all()
    assert town.refused() == 20
    assert town.is_served(OTHER)
    other.sendall(b"more")  # its flow goes on
    ends = town.daemon.forward(town.site.listen)["ends"]
    assert ends["banned"] == 1
    assert town.say("unban", CLIENT) == f"{CLIENT} is no longer banned\n"
    assert all(town.is_served() for _ in range(20))


def test_a_network_an_ipv4_address_and_their_ends(town: Town) -> None:
    town.say("ban", "2001:db8:1::99/64", "192.0.2.7", "--for", "1h")
    assert town.is_refused_by_all()
    assert town.is_refused_by_all("192.0.2.7")
    assert town.is_served(OTHER)
    assert town.is_served("192.0.2.8")
    listed = json.loads(town.say("bans", "--json"))["bans"]
    assert [each["network"] for each in listed] == ["192.0.2.7", "2001:db8:1::/64"]
    assert town.say("bans").splitlines()[0].split() == ["CLIENT", "UNTIL", "LEFT"]
    assert (
        town.say("unban", "--all").splitlines()
        == [f"{each['network']} is no longer banned" for each in listed]
        or len(listed) == 2
    )
    assert town.say("bans") == "nobody is banned\n"
    assert town.is_served()


def test_a_ban_is_prolonged_and_never_shortened(town: Town) -> None:
    def until() -> int:
        (ban,) = json.loads(town.say("bans", "--json"))["bans"]
        return int(ban["until"])

    town.say("ban", CLIENT, "--for", "1h")
    hour = until()
    assert "stays banned until" in town.say("ban", CLIENT, "--for", "10m")
    assert until() == hour
    assert "is banned until" in town.say("ban", CLIENT, "--for", "2h")
    assert until() > hour
    town.say("ban", CLIENT)
    assert "stays banned permanently" in town.say("ban", CLIENT, "--for", "1h")
    assert until() == 0


def test_unban_says_what_still_holds_a_client(town: Town) -> None:
    town.say("ban", CLIENT, "2001:db8:1::/64")
    result = town.daemon.command_line("unban", CLIENT)
    assert result.exit_code == 1
    assert result.output == f"{CLIENT} is no longer banned, but 2001:db8:1::/64 is, and holds it\n"
    assert town.say("unban", "2001:db8:7::1") == "2001:db8:7::1 was not banned\n"


def test_bans_outlive_a_restart_and_a_worker(town: Town) -> None:
    town.say("ban", CLIENT, "--for", "1h")
    town.say("ban", OTHER)
    town.say("unban", OTHER)
    town.daemon.kill_worker(town.daemon.workers()[0])
    assert town.is_refused_by_all()
    town.daemon.signal(signal.SIGTERM)
    assert town.daemon.wait() == 0
    town.daemon.run()
    assert town.is_refused_by_all()
    assert town.is_served(OTHER)


def test_bans_outlive_a_takeover(town: Town, successor: ServeProcess) -> None:
    town.say("ban", CLIENT)
    successor.run()
    assert town.daemon.wait() == 0
    assert town.is_refused_by_all()
    town.say("unban", CLIENT)
    assert town.is_served()


def test_a_ban_reaches_flows_that_a_predecessor_has(
    town: Town, successor: ServeProcess, state: Path
) -> None:
    """It drains: they would go on for as long as it lets them."""
    banned, killed, other = town.come(), town.come("2001:db8:3::3"), town.come(OTHER)
    assert banned.recv(5) == killed.recv(5) == other.recv(5) == b"hello"
    successor.run()
    mine = town.come()
    assert mine.recv(5) == b"hello"
    assert town.say("ban", CLIENT) == f"{CLIENT} is banned permanently\n2 flows reset\n"
    assert was_reset(banned)
    assert was_reset(mine)
    (file,) = state.glob("daemon/bans*")
    assert file.read_text() == f"+ {CLIENT}/128 0\n"  # one of them has written it
    assert town.say("unban", CLIENT) == f"{CLIENT} is no longer banned\n"
    assert "1 flow" in town.say("flows", "--kill", "--client", "2001:db8:3::3")
    assert was_reset(killed)
    reset(other)
    assert town.daemon.wait() == 0  # nothing is left there
    assert town.say("ban", CLIENT) == f"{CLIENT} is banned permanently\n"


def test_the_command_waits_for_every_worker(town: Town, state: Path) -> None:
    """One that is stopped bans before it accepts anybody again."""
    stopped = town.daemon.workers()[0]
    said: list[str] = []
    asking = threading.Thread(target=lambda: said.append(town.say("ban", CLIENT)))
    os.kill(stopped, signal.SIGSTOP)
    try:
        asking.start()
        eventually(lambda: [*state.glob("daemon/bans*")], "the ban is written")
        assert said == []
    finally:
        os.kill(stopped, signal.SIGCONT)
    asking.join()
    assert said == [f"{CLIENT} is banned permanently\n"]
    assert town.is_refused_by_all()


def test_a_ban_holds_once_the_command_has_returned(town: Town) -> None:
    """Under a flood at both workers: who begins after that is not admitted, ever."""
    is_banned, ends = threading.Event(), threading.Event()
    served_late: list[str] = []
    served_before: list[str] = []
    others: list[bool] = []

    def flood(client: str) -> None:
        while not ends.is_set():
            late = is_banned.is_set()
            try:
                served = town.is_served(client)
            except OSError:
                continue
            if served and client == OTHER:
                others.append(late)
            elif served:
                (served_late if late else served_before).append(client)

    threads = [threading.Thread(target=flood, args=(who,)) for who in [CLIENT] * 4 + [OTHER]]
    for thread in threads:
        thread.start()
    eventually(lambda: len(served_before) > 100, "a flood")
    town.say("ban", CLIENT)
    is_banned.set()
    after = town.refused()
    eventually(lambda: town.refused() > after + 200 and any(others), "many more have come")
    ends.set()
    for thread in threads:
        thread.join()
    assert served_late == []


def test_nothing_but_what_is_asked_for_is_banned(town: Town) -> None:
    for words in (
        ["ban", "::/0"],
        ["ban", "127.0.0.1"],
        ["ban", CLIENT, "--for", "forever"],
        ["ban"],
        ["unban"],
        ["unban", CLIENT, "--all"],
        ["flows", "--kill"],
    ):
        assert town.daemon.command_line(*words).exit_code == 2, words
    told = town.daemon.command_line("ban", "240.1.2.3")
    assert told.exit_code == 1
    assert "240.1.2.3 is the pseudo address of nobody" in told.output
    assert town.say("bans") == "nobody is banned\n"


def test_ones_own_address_takes_force(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", f"{CLIENT} 50022 2001:db8::1 22")
    refused = town.daemon.command_line("ban", "2001:db8:1::/64")
    assert refused.exit_code == 2
    assert f"2001:db8:1::/64 has your own address, {CLIENT}: --force" in refused.output
    town.say("ban", "2001:db8:1::/64", "--force")
    assert town.is_refused_by_all()


def test_a_file_that_cannot_be_kept_is_told_and_the_ban_holds(town: Town, state: Path) -> None:
    state.write_text("in the way")
    said = town.say("ban", CLIENT)
    assert "bans end with this daemon" in said
    assert town.is_refused_by_all()


def test_udp(site: Site) -> None:
    """A session of a banned client ends; what it sends makes none."""
    pair = f"[::]:{site.port}/udp", f"127.0.0.1:{site.one.getsockname()[1]}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(site.one.getsockname())
        target.settimeout(PATIENCE)
        site.daemon.configure(pair, more=KEYS)
        site.daemon.run()

        def send(client: str) -> None:
            head = bytes.fromhex("0d0a0d0a000d0a515549540a2122") + (36).to_bytes(2, "big")
            hosts = b"".join(socket.inet_pton(socket.AF_INET6, at) for at in (client, OTHER))
            sock.sendto(head + hosts + bytes(4) + client.encode(), ("::1", site.port))

        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
            send(CLIENT)
            assert target.recv(100) == CLIENT.encode()
            said = site.daemon.command_line("ban", CLIENT).output
            assert said == f"{CLIENT} is banned permanently\n1 flow reset\n"
            send(CLIENT)
            send(OTHER)
            assert target.recv(100) == OTHER.encode()
            assert site.daemon.forward(pair[0])["refused"] == {"banned": 1}


def test_flows_are_reset_by_client_and_by_listener(town: Town) -> None:
    flows = [town.come(who) for who in (CLIENT, CLIENT, OTHER, "192.0.2.7")]
    assert [flow.recv(5) for flow in flows] == [b"hello"] * 4
    told = town.daemon.command_line("flows", "--client", "2001:db8::/32", "--json")
    assert len(json.loads(told.output)["flows"]) == 3
    assert town.say("flows", "--kill", "--client", "2001:db8:1::/64") == "2 flows reset\n"
    assert [was_reset(flow) for flow in flows[:2]] == [True, True]
    assert town.say("flows", "--kill", "--listen", "[::]:1") == "0 flows reset\n"
    assert town.say("flows", "--kill", "--client", OTHER, "--listen", town.site.listen) == (
        "1 flow reset\n"
    )
    assert town.is_served()
    town.say("flows", "--kill", "--all")
    assert was_reset(flows[3])
    ends = town.daemon.forward(town.site.listen)["ends"]
    assert ends["ended by v6fwd flows --kill"] >= 4


@pytest.mark.parametrize(
    "request_", [{"do": "kill"}, {"do": "kill", "networks": "::1"}, {"do": "ban", "networks": [1]}]
)
def test_a_request_that_says_nothing_does_nothing(town: Town, request_: dict[str, Any]) -> None:
    flow = town.come()
    assert flow.recv(5) == b"hello"
    with pytest.raises(AskError):
        list(ask(str(town.daemon.control), request_))
    assert len(town.daemon.flows()) == 1
