"""The actions for fail2ban, with the real fail2ban and nft: whom they ban, and when that ends."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ServeProcess
from tests.support.paths import ROOT
from tests.support.process import eventually
from tests.support.servers import Nginx
from tests.support.stage import PORT, Stage, url_host
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, CONTAINER_V4
from v6fwd.model import ip_text
from v6fwd.relay.transparent.pseudo_store import PseudoStore

pytestmark = [
    pytest.mark.netns,
    pytest.mark.server("nginx", "curl", "nft", "fail2ban-server", "fail2ban-client"),
]

ACTIONS = ROOT / "contrib" / "fail2ban"
V6FWD = f"{sys.executable} -m v6fwd"
TABLE = "v6fwd-ban-web"
JAIL = """\
[web]
enabled = true
backend = polling
filter = web
logpath = {log}
maxretry = 1
findtime = 1h
bantime = 1h
usedns = no
action = {action}
"""
FILTER = "[Definition]\nfailregex = ^<HOST> no such page$\ndatepattern = {NONE}\n"
DAEMON = "[Definition]\nloglevel = INFO\nlogtarget = STDOUT\nsyslogsocket = auto\ndbfile = None\n"


class Fail2ban:
    """A server with one jail, on the host of a lab."""

    def __init__(self, stage: Stage, action: str) -> None:
        """`action`: as in a jail; STORE stands for the path of a store of pseudo addresses."""
        self._stage = stage
        self._action = action
        self._folder = stage.folder / "fail2ban"
        self.log = stage.folder / "web.log"
        self.store = stage.folder / "pseudo.sqlite"
        self._said = stage.folder / "fail2ban.log"
        self._configure()
        with self._said.open("w") as said:
            self._process = stage.lab.start(
                "host",
                *("fail2ban-server", "-f", "-c", str(self._folder), "-s", self._at("sock")),
                *("-p", self._at("pid"), "start"),
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: "web" in self.ask("status"), "fail2ban has its jail")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def _configure(self) -> None:
        for name in ("action.d", "filter.d"):
            (self._folder / name).mkdir(parents=True)
        self.log.touch()
        action = self._action.replace("STORE", str(self.store))
        (self._folder / "fail2ban.conf").write_text(DAEMON)
        (self._folder / "jail.conf").write_text(JAIL.format(log=self.log, action=action))
        (self._folder / "filter.d" / "web.conf").write_text(FILTER)
        for file in ACTIONS.iterdir():
            (self._folder / "action.d" / file.name).write_text(file.read_text())

    def _at(self, name: str) -> str:
        return str(self._folder / name)

    def ask(self, *words: str) -> str:
        """What fail2ban-client is told."""
        command = ["fail2ban-client", "-s", self._at("sock"), *words]
        return str(self._stage.lab.run("host", *command).stdout)

    def complain(self, client: str) -> None:
        """The web server logs something that the jail dislikes."""
        with self.log.open("a") as log:
            log.write(f"{client} no such page\n")

    def settles(self) -> None:
        """Wait until no command of an action runs: it ends no ban that is not complete."""
        children = ["pgrep", "--parent", str(self._process.pid)]
        eventually(
            lambda: subprocess.run(children, stdout=subprocess.DEVNULL, check=False).returncode,
            "its commands have ended",
        )

    def table(self) -> str:
        """The rules, as they are now."""
        return str(self._stage.lab.run("host", "nft", "list", "table", "inet", TABLE).stdout)

    def end(self) -> None:
        """Stop it, as systemd would."""
        self.ask("stop")
        self._process.wait(20)
        print(self._said.read_text())  # shown where a test failed


@pytest.fixture
def fail2ban(stage: Stage) -> Iterator[Fail2ban]:
    """It runs with the action of nftables; the client reaches a web server through v6fwd."""
    stage.relay_to(Nginx(stage.folder), "--client-ip", "proxy-v2")
    whois = f"{V6FWD} whois --network --pseudo-store STORE"
    fail2ban = Fail2ban(stage, f'v6fwd-nft[name=web, whois="{whois}"]')
    yield fail2ban
    fail2ban.end()
    assert TABLE not in fail2ban.table(), "nothing is left behind"


@pytest.fixture
def with_daemon(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Fail2ban, ServeProcess]]:
    """The same with a daemon, and the action that asks it."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    daemon, server = ServeProcess(tmp_path, "daemon"), Nginx(stage.folder)
    server.start(stage.lab)
    target = f"{CONTAINER_V4}:{server.port}"
    options = f"options=--socket {daemon.control}"
    fail2ban = Fail2ban(stage, f'v6fwd[name=web, v6fwd="{V6FWD}", {options}]')
    daemon.configure((f"[::]:{PORT}", target))
    with daemon.config.open("a") as config:
        config.write('\nclient-ip = "proxy-v2"\n')
        config.write(f'[[forward]]\nlisten = "[::]:81"\ntarget = "{target}"\n')
        config.write(f'client-ip = "transparent"\npseudo-store = "{fail2ban.store}"\n')
    try:
        daemon.run(prefix=stage.lab.command("host"))
        yield fail2ban, daemon
        fail2ban.end()
        assert TABLE not in fail2ban.table(), "nothing is left behind"
        assert banned(daemon) == set(), "fail2ban has ended its bans"
    finally:
        daemon.end()


def banned(daemon: ServeProcess) -> set[str]:
    """Whom the daemon has banned."""
    listed = daemon.command_line("bans", "--json")
    assert listed.exit_code == 0, listed.output
    return {each["network"] for each in json.loads(listed.output)["bans"]}


def reaches(stage: Stage, client: str, seconds: int = 20) -> bool:
    """Whether the client gets a page from this address of its own."""
    words = ("--max-time", str(seconds), "--interface", client, f"http://{url_host(client)}/")
    return stage.curl(*words).returncode == 0


@pytest.mark.parametrize("client", [CLIENT_V6, CLIENT_V4])
def test_a_client_is_banned_and_let_in_again(stage: Stage, fail2ban: Fail2ban, client: str) -> None:
    assert reaches(stage, client)
    fail2ban.complain(client)
    eventually(lambda: client in fail2ban.table(), "it is banned")
    assert not reaches(stage, client, seconds=1)
    fail2ban.settles()
    fail2ban.ask("set", "web", "unbanip", client)
    eventually(lambda: client not in fail2ban.table(), "the ban has ended")
    assert reaches(stage, client)


def test_a_pseudo_address_bans_the_network_behind_it(stage: Stage, fail2ban: Fail2ban) -> None:
    store = PseudoStore(str(fail2ban.store))
    pseudo = ip_text(store.address_of(ipaddress.ip_address(CLIENT_V6).packed, 64))
    store.close()
    fail2ban.complain(pseudo)
    eventually(lambda: "2001:db8:1::/64" in fail2ban.table(), "its network is banned")
    assert not reaches(stage, CLIENT_V6, seconds=1)
    assert reaches(stage, CLIENT_V4), "nobody else is"


@pytest.mark.parametrize("client", [CLIENT_V6, CLIENT_V4])
def test_the_daemon_bans_a_client_and_lets_it_in_again(
    stage: Stage, with_daemon: tuple[Fail2ban, ServeProcess], client: str
) -> None:
    fail2ban, daemon = with_daemon
    assert reaches(stage, client)
    fail2ban.complain(client)
    eventually(lambda: banned(daemon) == {client}, "it is banned")
    assert not reaches(stage, client, seconds=1)
    assert (client in fail2ban.table()) == (client == CLIENT_V4), (
        "for those whom Docker's DNAT takes"
    )
    fail2ban.settles()
    fail2ban.ask("set", "web", "unbanip", client)
    eventually(lambda: not banned(daemon) and client not in fail2ban.table(), "the ban has ended")
    assert reaches(stage, client)


def test_the_daemon_bans_the_network_behind_a_pseudo_address(
    stage: Stage, with_daemon: tuple[Fail2ban, ServeProcess]
) -> None:
    fail2ban, daemon = with_daemon
    store = PseudoStore(str(fail2ban.store))
    pseudo = ip_text(store.address_of(ipaddress.ip_address(CLIENT_V6).packed, 64))
    store.close()
    fail2ban.complain(pseudo)
    eventually(lambda: banned(daemon) == {"2001:db8:1::/64"}, "its network is banned")
    assert not reaches(stage, CLIENT_V6, seconds=1)
    assert reaches(stage, CLIENT_V4), "nobody else is"
