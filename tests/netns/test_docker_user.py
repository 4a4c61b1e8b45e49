"""DOCKER-USER judges redirected packets as it judges those that go to a container."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.process import eventually
from v6fwd.demo.lab import CLIENT_V4, CONTAINER_V4, HOST_V4, Lab

pytestmark = [pytest.mark.netns, pytest.mark.server("iptables", "curl")]

PORT = 8080
KEEPER = f"""
import asyncio, sys
from v6fwd.docker.docker_user import DockerUser
from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward
async def main():
    user = DockerUser(Log())
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(0, gone.set)
    user.set([Forward(Endpoint("0.0.0.0", {PORT}), Endpoint("{CONTAINER_V4}", 80))])
    print("set", flush=True)
    await gone.wait()
    user.close(keep=False)
asyncio.run(main())
"""
SERVER = f"import http.server as h; h.HTTPServer(('0.0.0.0', {PORT}), h.SimpleHTTPRequestHandler)"


class Keeper:
    """The host: DOCKER-USER, something that listens at the redirected port, and the chain."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.iptables("-N", "DOCKER-USER")
        server = lab.start(
            "host", sys.executable, "-u", "-c", f"{SERVER}.serve_forever()",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(lambda: self.get() or server.poll(), "the server listens")

    def start(self) -> None:
        """Keep the chain from now on."""
        self._keeper = self._lab.start(
            "host", sys.executable, "-c", KEEPER,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "set\n"

    def end(self) -> str:
        """Let the redirect end; gives what was logged."""
        _, log = self._keeper.communicate("", timeout=20)
        return str(log)

    def iptables(self, *words: str) -> str:
        """Run iptables on the host."""
        done = self._lab.run("host", "iptables", "-w", *words)
        done.check_returncode()
        return str(done.stdout)

    def get(self) -> bool:
        """Whether the client gets a page."""
        words = ("--silent", "--output", "/dev/null", "--max-time", "1")
        return self._lab.run("client", "curl", *words, f"http://{HOST_V4}:{PORT}/").returncode == 0


@pytest.fixture
def host() -> Iterator[Keeper]:
    with Lab() as lab:
        yield Keeper(lab)


def test_a_ban(host: Keeper) -> None:
    host.iptables("-I", "DOCKER-USER", "-s", CLIENT_V4, "-j", "DROP")
    host.start()
    assert not host.get()
    host.iptables("-D", "DOCKER-USER", "-s", CLIENT_V4, "-j", "DROP")
    eventually(host.get, "the client is let in again")
    assert host.end() == ""
    assert "V6FWD" not in host.iptables("-S"), "nothing is left"


def test_a_ban_that_comes_later(host: Keeper) -> None:
    host.start()
    assert host.get()
    host.iptables("-N", "f2b-web")
    host.iptables(
        "-A", "DOCKER-USER", "-p", "tcp", "-m", "multiport", "--dports", "80", "-j", "f2b-web"
    )
    eventually(
        lambda: "f2b-web" in host.iptables("-S").partition("V6FWD-USER -p")[2], "the chain follows"
    )
    host.iptables("-A", "f2b-web", "-s", CLIENT_V4, "-j", "REJECT")
    assert not host.get(), "at once, as the chain is shared"
    host.end()


@pytest.mark.parametrize(("allowed", "is_in"), [(CLIENT_V4, True), ("192.0.2.1", False)])
def test_an_allow_list(host: Keeper, allowed: str, is_in: bool) -> None:
    host.iptables(
        "-A", "DOCKER-USER", "!", "-s", allowed, "-p", "tcp", "--dport", "80", "-j", "DROP"
    )
    host.start()
    assert host.get() is is_in
    host.end()


def test_a_rule_that_cannot_be_translated_blocks(host: Keeper) -> None:
    host.iptables("-A", "DOCKER-USER", "-o", "docker0", "-s", "192.0.2.1", "-j", "DROP")
    host.start()
    assert not host.get()
    assert "IPv4 clients are dropped, as v6fwd cannot tell what this rule" in host.end()


def test_the_jump_is_restored(host: Keeper) -> None:
    host.iptables("-I", "DOCKER-USER", "-s", CLIENT_V4, "-j", "DROP")
    host.start()
    host.iptables("-F", "INPUT")
    eventually(lambda: "-j V6FWD-USER" in host.iptables("-S"), "the jump is back")
    assert not host.get()
    host.end()
