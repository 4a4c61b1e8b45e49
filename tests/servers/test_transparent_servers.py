"""Real servers with their stock configuration, in an IPv4-only container: they name the client.

Nothing of them is changed. Each runs in a mount namespace of its own, where /run is empty and
/var/log is a folder of the test's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bans import MALLORY, as_auth_log, banned_by
from tests.support.dns_servers import ADDRESS, NAME, Unbound
from tests.support.process import eventually
from tests.support.servers import (
    DIALLED,
    STOCK_APACHE,
    STOCK_NGINX,
    Apache,
    Nginx,
    is_listening,
    page,
)
from tests.support.stage import CLIENTS, PORT, Stage, curl, url_host
from v6fwd.demo.lab import CLIENT_V6, CONTAINER_V4

pytestmark = [pytest.mark.netns, pytest.mark.server("curl")]

SSHD = "mkdir /run/sshd; exec /usr/sbin/sshd -D -E /var/log/sshd.log"


def start_stock(stage: Stage, command: str, port: int) -> None:
    """Run a server in the container as Debian configures it."""
    for name in ("apache2", "nginx"):
        (stage.folder / name).mkdir()
    script = f"mount -t tmpfs none /run && mount --bind {stage.folder} /var/log && {command}"
    process = stage.lab.start("container", "sh", "-c", script)
    eventually(
        lambda: process.poll() is not None or is_listening(stage.lab, "container", port), "listens"
    )
    assert process.poll() is None


def transparent(stage: Stage, port: int, listen: str = f"[::]:{PORT}") -> None:
    """v6fwd in front of a port of the container."""
    netns, store = stage.lab.namespace("container"), str(stage.folder / "pseudo.sqlite")
    words = ("--client-ip", "transparent", "--target-netns", netns, "--pseudo-store", store)
    stage.start_forward(listen, f"{CONTAINER_V4}:{port}", *words)


def read(path: Path) -> str:
    """A log that may not be there yet."""
    return path.read_text() if path.exists() else ""


def without_ipv6(stage: Stage) -> None:
    """No IPv6 address but ::1, as in containers of Docker's IPv4 networks."""
    stage.lab.run("container", "sysctl", "-w", "net.ipv6.conf.eth0.disable_ipv6=1")


MISSING = "/wp-login.php"
"""What no server here has, and what fail2ban's filters take for an attack."""


def log_of_a_request(stage: Stage, setup: str, log: str, client: str) -> Path:
    """Start a web server, request MISSING through v6fwd, and give the log with its line."""
    start_stock(stage, setup, 80)
    transparent(stage, 80)
    assert "404" in stage.curl(f"http://{url_host(client)}{MISSING}").stdout
    file = stage.folder / log
    eventually(lambda: read(file), "a line in the log")
    return file


@CLIENTS
@pytest.mark.server("apache2")
def test_apache(stage: Stage, client: str) -> None:
    stage.lab.ip("container", "address", "add", "fe80::2/64", "dev", "eth0", "nodad")
    log = log_of_a_request(stage, STOCK_APACHE, "apache2/access.log", client)
    assert re.match(rf'{re.escape(client)} - - .*"GET {MISSING} ', read(log))


@pytest.mark.server("apache2")
def test_apache_without_any_ipv6_address_listens_on_ipv4(stage: Stage) -> None:
    """glibc's AI_ADDRCONFIG makes it so (docs/transparent.md): a pseudo address is what it sees."""
    without_ipv6(stage)
    log = log_of_a_request(stage, STOCK_APACHE, "apache2/access.log", CLIENT_V6)
    assert whois(stage, read(log).split()[0]).startswith("2001:db8:1::/64, seen ")


@CLIENTS
@pytest.mark.server("nginx", "fail2ban-regex")
def test_nginx_and_fail2ban(stage: Stage, client: str) -> None:
    """fail2ban's stock filter for its log would ban the client itself."""
    without_ipv6(stage)
    log = log_of_a_request(stage, STOCK_NGINX, "nginx/access.log", client)
    assert re.match(rf'{re.escape(client)} - - .*"GET {MISSING} ', read(log))
    assert banned_by(log, "nginx-botsearch") == {client}


@CLIENTS
@pytest.mark.server("sshd", "ssh", "fail2ban-regex")
def test_openssh_and_fail2ban(stage: Stage, client: str) -> None:
    """Its log is what fail2ban reads, with its stock filter: it would ban the client itself."""
    without_ipv6(stage)
    start_stock(stage, SSHD, 22)
    transparent(stage, 22)
    tried = stage.lab.run("client", *MALLORY, "-p", str(PORT), DIALLED[client], "true")
    assert "Permission denied" in tried.stderr, tried.stderr
    line = f"Invalid user mallory from {client} port "
    eventually(lambda: line in read(stage.folder / "sshd.log"), line)
    auth_log = stage.folder / "auth.log"
    auth_log.write_text(as_auth_log(read(stage.folder / "sshd.log")))
    assert banned_by(auth_log, "sshd") == {client}


def whois(stage: Stage, pseudo: str) -> str:
    """Who is behind a pseudo address, as `v6fwd whois` tells."""
    store = str(stage.folder / "pseudo.sqlite")
    command = [sys.executable, "-m", "v6fwd", "whois", pseudo, "--pseudo-store", store]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.startswith(f"{pseudo} is ")
    return told.stdout.removeprefix(f"{pseudo} is ")


@CLIENTS
@pytest.mark.server("psql", "setpriv")
def test_postgresql(stage: Stage, client: str) -> None:
    """As its container image has it: listening on all addresses, for everybody."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    data = stage.folder / "data"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    as_postgres = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    made = stage.lab.run("container", *as_postgres, f"{programs}/initdb", "-D", str(data),
                         "--auth=trust", "--no-sync", "--no-locale")  # fmt: skip
    assert made.returncode == 0, made.stderr
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all trust\n")
    stage.lab.start("container", *as_postgres, f"{programs}/postgres", "-D", str(data),
                    "-c", "listen_addresses=*", "-k", str(data),
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    eventually(lambda: (data / "postmaster.pid").exists()
               and "ready" in read(data / "postmaster.pid"), "PostgreSQL is ready")  # fmt: skip
    transparent(stage, 5432)
    query = "select client_addr from pg_stat_activity where pid = pg_backend_pid()"
    where = ("-h", DIALLED[client], "-p", str(PORT), "-U", "postgres")
    asked = stage.lab.run("client", "psql", *where, "-Atc", query, cwd="/")
    assert asked.stdout.strip() == client, asked.stderr


class StockUnbound(Unbound):
    """It listens on both families, and leaves the source of its answers to the kernel."""

    def config(self) -> str:
        """See DnsServer."""
        one = "interface: 0.0.0.0@53"
        return super().config().replace(one, f"{one}\n    interface: ::0@53")


@CLIENTS
@pytest.mark.server("unbound", "dig")
def test_unbound_over_udp(stage: Stage, client: str) -> None:
    server = StockUnbound(stage.folder, {})
    server.start(stage.lab)
    transparent(stage, 53, "[::]:53/udp")
    question = ("+short", "+tries=1", "+time=5", NAME, "A", NAME, "A")
    asked = stage.lab.run("client", "dig", f"@{DIALLED[client]}", *question)
    assert asked.stdout.split() == [ADDRESS] * 2
    eventually(lambda: server.log.count(f" {client} {NAME}. A IN") == 2, "two queries logged")


@pytest.mark.server("nginx")
def test_a_server_on_ipv4_alone_sees_a_pseudo_address(stage: Stage) -> None:
    """nginx with `listen 80;`, as in many images: `v6fwd whois` knows whom it stands for."""
    server = Nginx(stage.folder, lines={})
    server.start(stage.lab)
    transparent(stage, 80)
    assert stage.curl(f"http://{url_host(CLIENT_V6)}/one").stdout == page("one")
    server.stop()
    assert whois(stage, server.log.split()[0]).startswith("2001:db8:1::/64, seen ")


@pytest.mark.server("apache2")
def test_many_at_once(stage: Stage) -> None:
    """All answered, all under their own address."""
    stage.lab.ip("container", "address", "add", "fe80::2/64", "dev", "eth0", "nodad")
    server = Apache(stage.folder, lines={})
    server.start(stage.lab)
    transparent(stage, 80)
    urls = [f"http://{url_host(CLIENT_V6)}/one?{number}" for number in range(200)]
    asked = stage.lab.run("client", *curl("--parallel", "--no-keepalive", *urls))
    assert asked.stdout == page("one") * 200
    server.stop()
    assert server.log.count(f'{CLIENT_V6} "GET /one?') == 200
