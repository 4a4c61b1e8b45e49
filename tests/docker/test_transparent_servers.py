"""Real servers in real containers of an IPv4 network, with the configuration that they come with.

The label is all that they get. See test_transparent.py for OpenSSH, fail2ban and Apache's image.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.docker.conftest import fetch
from tests.support.dns_servers import ADDRESS, NAME, Unbound
from tests.support.images import AS_HERE, load_bare
from tests.support.labelled import LABEL, run, wait_served
from tests.support.process import eventually
from tests.support.served import Served
from tests.support.servers import DIALLED, STOCK_APACHE, STOCK_NGINX

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


def request_a_missing_page(served: Served, host: str) -> None:
    """A request that is answered with 404."""
    asked = fetch(served, host, "/none")
    assert "404 Not Found" in asked.stdout, asked.stderr + served.log


@pytest.mark.server("apache2", "nginx", "curl")
@pytest.mark.parametrize(
    ("command", "log"),
    [
        (STOCK_APACHE, "/var/log/apache2/access.log"),
        (STOCK_NGINX, "/var/log/nginx/access.log"),
    ],
)
def test_debians_web_servers(served: Served, command: str, log: str) -> None:
    """Apache has `Listen 80` there, nginx `listen 80` and `listen [::]:80`."""
    start(served, command, 80)
    for host in DIALLED.values():
        request_a_missing_page(served, host)
    lines = served.engine.docker("exec", "one", "cat", log).splitlines()
    seen = [line.split()[0] for line in lines if '"GET /none HTTP/1.1" 404' in line]
    assert seen == list(DIALLED)


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
        asked = {client_that_postgresql_sees(served, host): host for host in DIALLED.values()}
    finally:
        served.engine.remove("one")
        shutil.rmtree(data)
    assert asked == DIALLED


def client_that_postgresql_sees(served: Served, host: str) -> str:
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
    server = BothUnbound(folder, {})
    (folder / "unbound.conf").write_text(server.config())
    try:
        words = ("--publish", "8080:53/udp", *AS_HERE, "--volume", f"{folder}:/data", "bare")
        served.engine.run("--name", "one", *LABEL, *words,
                          "unbound", "-d", "-c", "/data/unbound.conf")  # fmt: skip
        wait_served(served, "[::]:8080/udp")
        eventually(lambda: (folder / "query.log").exists(), "it has started")
        for host in DIALLED.values():
            question = ("-p", "8080", f"@{host}", "+short", "+tries=3", "+time=5", NAME, "A")
            asked = served.engine.lab.run("client", "dig", *question)
            assert asked.stdout.split() == [ADDRESS], asked.stdout + asked.stderr
        seen = re.findall(rf" (\S+) {NAME}\. A IN", server.log)
    finally:
        served.engine.remove("one")
        shutil.rmtree(folder)
    assert list(dict.fromkeys(seen)) == list(DIALLED)
