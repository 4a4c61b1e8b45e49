"""Real servers in real containers of an IPv4 network, with the configuration that they come with.

The label is all that they get. See test_transparent.py for OpenSSH, fail2ban and Apache's image.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.dns_servers import ADDRESS, NAME, Unbound
from tests.support.images import AS_HERE, load_bare
from tests.support.labelled import run, wait_served
from tests.support.process import eventually
from tests.support.served import Served
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6

DIALLED = {HOST_V6: CLIENT_V6, HOST_V4: CLIENT_V4}
"""Whom a server is to see, by the address of the host that the client asks."""
APACHE = (
    ". /etc/apache2/envvars; mkdir -p $APACHE_RUN_DIR $APACHE_LOCK_DIR; exec apache2 -DFOREGROUND"
)
POSTGRES = (
    "initdb -D /data/base --auth=trust --no-sync --no-locale && "
    "echo host all all all trust >>/data/base/pg_hba.conf && "
    "exec postgres -D /data/base -c listen_addresses='*' -k /data"
)


@pytest.fixture
def served(labelled: Served) -> Served:
    """With an image for this machine's programs; a test leaves no container behind."""
    load_bare(labelled.engine, "bare")
    return labelled


def start(served: Served, command: str, port: int, *words: str) -> None:
    """Run a server of this machine in the container `one`."""
    run(served, "--publish", f"8080:{port}", *AS_HERE, *words, "bare", "sh", "-c", command)


def ask_for_nothing(served: Served, host: str) -> None:
    """A request that is answered with 404; the server may be just starting."""
    again = ("--retry", "40", "--retry-all-errors", "--retry-delay", "0", "--retry-max-time", "20")
    url = f"http://[{host}]:8080/none" if ":" in host else f"http://{host}:8080/none"
    asked = served.engine.lab.run("client", "curl", "--silent", "--show-error", *again, url)
    assert "404 Not Found" in asked.stdout, asked.stderr + served.log


@pytest.mark.server("apache2", "nginx", "curl")
@pytest.mark.parametrize(
    ("command", "log"),
    [
        (APACHE, "/var/log/apache2/access.log"),
        ("exec nginx -g 'daemon off;'", "/var/log/nginx/access.log"),
    ],
)
def test_debians_web_servers(served: Served, command: str, log: str) -> None:
    """Apache has `Listen 80` there, nginx `listen 80` and `listen [::]:80`."""
    start(served, command, 80)
    for host in DIALLED:
        ask_for_nothing(served, host)
    lines = served.engine.docker("exec", "one", "cat", log).splitlines()
    seen = [line.split()[0] for line in lines if '"GET /none HTTP/1.1" 404' in line]
    assert seen == list(DIALLED.values())


@pytest.mark.server("psql")
def test_postgresql(served: Served) -> None:
    """As its container image has it: listening on all addresses, for everybody."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    data = served.engine.folder / "postgres"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    try:
        owner = data.stat()
        user = f"{owner.st_uid}:{owner.st_gid}"  # the engine looks for names in the image
        as_image = ("--user", user, "--volume", f"{data}:/data")
        start(served, f"PATH=$PATH:{programs}; {POSTGRES}", 5432, *as_image)
        asked = {host: who_asks(served, host) for host in DIALLED}
    finally:
        served.engine.remove("one")
        shutil.rmtree(data)
    assert asked == DIALLED


def who_asks(served: Served, host: str) -> str:
    """Whom PostgreSQL sees; it may be just starting."""
    query = "select client_addr from pg_stat_activity where pid = pg_backend_pid()"
    words = ("psql", "-h", host, "-p", "8080", "-U", "postgres", "-Atc", query)
    told: list[str] = []

    def is_told() -> bool:
        asked = served.engine.lab.run("client", *words, cwd="/")
        told.append(asked.stdout.strip())
        return asked.returncode == 0

    eventually(is_told, "PostgreSQL answers")
    return told[-1]


class BothUnbound(Unbound):
    """It listens on both families, and leaves the source of its answers to the kernel."""

    def config(self) -> str:
        """See DnsServer."""
        text = super().config().replace(str(self.folder), "/data")
        return text.replace("interface: 0.0.0.0@53", "interface: 0.0.0.0@53\n    interface: ::0@53")


@pytest.mark.server("unbound", "dig")
def test_unbound_over_udp(served: Served) -> None:
    """Its access list lets in these two clients and nobody else, the bridge aside."""
    folder = served.engine.folder / "unbound"
    folder.mkdir()
    server = BothUnbound(folder, proxy=False)
    (folder / "unbound.conf").write_text(server.config())
    try:
        words = ("--publish", "8080:53/udp", *AS_HERE, "--volume", f"{folder}:/data", "bare")
        served.engine.run("--name", "one", "--label", "v6fwd.client-ip=transparent", *words,
                          "unbound", "-d", "-c", "/data/unbound.conf")  # fmt: skip
        wait_served(served, "[::]:8080/udp")
        eventually(lambda: (folder / "query.log").exists(), "it has started")
        for host in DIALLED:
            question = ("-p", "8080", f"@{host}", "+short", "+tries=3", "+time=5", NAME, "A")
            asked = served.engine.lab.run("client", "dig", *question)
            assert asked.stdout.split() == [ADDRESS], asked.stdout + asked.stderr
        seen = re.findall(rf" (\S+) {NAME}\. A IN", server.log)
    finally:
        served.engine.remove("one")
        shutil.rmtree(folder)
    assert list(dict.fromkeys(seen)) == list(DIALLED.values())
