"""Mode `transparent` by label alone: whom servers in IPv4-only containers see and log."""

from __future__ import annotations

import contextlib
import ipaddress
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import apache_conf, ask, every_engine, without_userland_proxy
from tests.docker.test_served import seen, visit
from tests.support.bans import MALLORY, as_auth_log, banned_by
from tests.support.images import STOCK_HTTPD, load_sshd
from tests.support.labelled import inside, run, wait_served
from tests.support.process import eventually
from tests.support.served import Served
from v6fwd.client_ip.pseudo_ipv4 import is_pseudo
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6

pytestmark = pytest.mark.server("curl")


@pytest.fixture
def served(labelled: Served) -> Served:
    """A daemon and an engine; a test leaves no container behind."""
    return labelled


def apache(served: Served, listen: str) -> tuple[str, ...]:
    """The words for Docker to run Apache, which knows nothing of proxies."""
    return "--publish", "8080:80", *apache_conf(served, STOCK_HTTPD.format(listen=listen)), "httpd"


def run_apache(served: Served, listen: str) -> None:
    """Start it, with the label."""
    run(served, *apache(served, listen))


@contextlib.contextmanager
def configured(served: Served, old: str, new: str) -> Iterator[None]:
    """With another text in the configuration, for a while."""
    config = served.process.config
    before = config.read_text()
    assert old in before
    config.write_text(before.replace(old, new, 1))
    served.process.reload()
    yield
    config.write_text(before)
    served.process.reload()


def seems_to_have_ipv6(served: Served) -> bool:
    """Whether a server in the container would listen on `::`."""
    return "inet6 fe80::76:3666:7764/128" in inside(served, "one", "ip", "address", "show", "lo")


def whois(served: Served, pseudo: str) -> str:
    """Who is behind a pseudo address."""
    store = str(served.pseudo_store)
    command = [sys.executable, "-m", "v6fwd", "whois", pseudo, "--pseudo-store", store]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("listen", ["Listen 80", "Listen [::]:80"])
def test_apache_logs_the_client(served: Served, listen: str) -> None:
    """Nothing of it speaks of proxies, headers or modules; after `apachectl graceful`, `restart`
    and a restart of the container, too."""
    run_apache(served, listen)
    for host in (HOST_V6, HOST_V4):
        visit(served, host)
    eventually(lambda: not seems_to_have_ipv6(served), "it is as Docker made it")
    assert " 2001:" not in inside(served, "one", "ip", "address")
    for number in ("USR1", "HUP"):
        served.engine.docker("kill", "--signal", number, "one")
        visit(served, HOST_V6)
    served.engine.docker("restart", "--time", "1", "one")
    wait_served(served)
    visit(served, HOST_V6)
    assert seen(served) == [CLIENT_V6, CLIENT_V4, *[CLIENT_V6] * 3]


def test_apache_that_finds_no_ipv6_logs_a_pseudo_address(served: Served) -> None:
    """glibc's AI_ADDRCONFIG does not count ::1, so `Listen 80` is 0.0.0.0:80."""
    with configured(served, "[docker]", "[docker]\ntransparent-address = false"):
        run_apache(served, "Listen 80")
        assert not seems_to_have_ipv6(served)
        for host in (HOST_V6, HOST_V4):
            visit(served, host)
    pseudo, real = seen(served)
    assert real == CLIENT_V4
    assert whois(served, pseudo).startswith(f"{pseudo} is 2001:db8:1::/64")


def test_datagrams(served: Served) -> None:
    """The echo server listens on 0.0.0.0 alone."""
    run(served, "--publish", "8080:80/udp", "--publish", "8080:80", "echo", "80")
    eventually(lambda: served.modes().get("[::]:8080/udp") == "transparent", "it is served")
    for protocol in ("tcp", "udp"):
        [answer] = ask(served.engine, protocol, HOST_V6, 8080)
        assert is_pseudo(ipaddress.ip_address(answer.split()[1]).packed)
        assert ask(served.engine, protocol, HOST_V4, 8080) == [f"from {CLIENT_V4} hello"]


def test_the_host_itself_is_served(served: Served) -> None:
    """Who comes from 127.0.0.1 and ::1 is not shown, but is served, as by docker-proxy."""
    run_apache(served, "Listen [::]:80")
    visit(served, HOST_V6)
    for host in ("127.0.0.1", "[::1]"):
        asked = served.engine.lab.run("host", "curl", "--silent", f"http://{host}:8080/")
        assert "It works!" in asked.stdout
    assert seen(served)[0] == CLIENT_V6
    assert not {"127.0.0.1", "::1"} & set(seen(served))


@pytest.mark.server("sshd", "ssh", "ssh-keygen", "fail2ban-regex")
def test_openssh_and_fail2ban(served: Served, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    load_sshd(served.engine, "sshd", key)
    run(served, "--publish", "8080:22", "sshd")
    wait_listening(served, 22)
    for host in (HOST_V6, HOST_V4):
        tried = served.engine.lab.run("client", *MALLORY, "-p", "8080", host, "true")
        assert "Permission denied" in tried.stderr, tried.stderr
    said = served.engine.try_docker("logs", "one").stderr
    log = tmp_path / "auth.log"
    log.write_text(as_auth_log(said))
    assert banned_by(log, "sshd") == {CLIENT_V6, CLIENT_V4}


def wait_listening(served: Served, port: int) -> None:
    """Wait until the server in the container has come up."""
    eventually(lambda: f":{port} " in inside(served, "one", "ss", "-Htln"), "it listens")


@pytest.mark.parametrize("whole", every_engine[-1:], indirect=True)
def test_without_a_userland_proxy(served: Served) -> None:
    """dockerd starts no shim; the container's process is another one after a restart."""
    with without_userland_proxy(served):
        run_apache(served, "Listen [::]:80")
        assert served.modes().keys() == {"[::]:8080"}
        visit(served, HOST_V6)
        served.engine.docker("restart", "--time", "1", "one")
        for host in (HOST_V6, HOST_V4):
            visit(served, host)
        assert seen(served) == [CLIENT_V6, CLIENT_V6, CLIENT_V4]
        served.engine.remove("one")
