"""`v6fwd serve --docker` under real engines: labels, both families, and everybody's restarts."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import ASK, apache_conf, ask, fetch, without_userland_proxy
from tests.support.paths import ROOT
from tests.support.process import eventually
from tests.support.served import Served
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6

pytestmark = pytest.mark.server("nft", "curl")

HTTPD_CONF = ROOT / "examples/httpd/httpd.conf"
LOAD = Path(__file__).with_name("load.py")
ASK_ONCE = """
import socket, sys
client = socket.create_connection((sys.argv[1], 8080), 1)
client.sendall(b"hello")
client.shutdown(socket.SHUT_WR)
print(client.recv(99).decode(errors="replace"), end="")
"""
PUBLISHED = ("--publish", "8080:80/tcp", "--publish", "8080:80/udp")
ENDPOINTS = {"0.0.0.0:8080", "[::]:8080", "0.0.0.0:8080/udp", "[::]:8080/udp"}


@pytest.fixture
def served(whole: Served) -> Iterator[Served]:
    """The same; a test leaves no container, port, process or rule behind."""
    yield whole
    print(whole.log[-4000:], whole.engine.log[-4000:])  # shown where a test failed
    if whole.engine.is_running():
        left = whole.engine.docker("ps", "--all", "--quiet").split()
        if left:
            whole.engine.remove(*left)
    assert not whole.engine.proxies()
    assert not whole.modes()
    assert not {each for each in whole.engine.listeners() if ":8080" in each}
    if whole.engine.is_running():
        eventually(lambda: not diverts(whole), "no rule is left")
    assert "internal error" not in whole.log
    assert "Traceback" not in whole.log


def diverts(served: Served) -> bool:
    """Whether there is a table of ours."""
    return "v6fwd" in served.engine.lab.run("host", "nft", "list", "tables").stdout


def reaches_nobody(served: Served) -> bool:
    """Whether an IPv4 client is refused, or gets no answer within a second."""
    asked = served.engine.lab.run("client", sys.executable, "-c", ASK_ONCE, HOST_V4)
    return asked.returncode != 0 or not asked.stdout


def run(served: Served, *words: str, image: tuple[str, ...] = ("echo", "80")) -> None:
    """Start a container whose port 80 is published, and wait until its ports are served."""
    served.engine.run("--name", "one", *PUBLISHED, *words, *image)
    eventually(lambda: served.modes().keys() >= ENDPOINTS, "its ports are served")


def run_httpd(served: Served, conf: str, *words: str) -> None:
    """Start Apache with this configuration."""
    run(served, *apache_conf(served, conf), *words, image=("httpd",))


def visit(served: Served, host: str) -> None:
    """Ask Apache for its page."""
    asked = fetch(served, host)
    assert "It works!" in asked.stdout, asked.stderr + served.log


def seen(served: Served) -> list[str]:
    """The clients in Apache's own log, of requests that it answered."""
    return re.findall(
        r'(\S+) \S+ \S+ \[.*?\] "GET / HTTP/1.1" 200', served.engine.docker("logs", "one")
    )


def forwarded_conf() -> str:
    trusted = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 172.17.0.0/16"
    return HTTPD_CONF.read_text().replace("RemoteIPProxyProtocol On", trusted)


CONFS = {
    "proxy-v1": HTTPD_CONF.read_text,
    "proxy-v2": HTTPD_CONF.read_text,
    "x-forwarded-for": forwarded_conf,
}


@pytest.mark.parametrize("mode", CONFS)
def test_apache_logs_the_client(served: Served, mode: str) -> None:
    run_httpd(served, CONFS[mode](), "--label", f"v6fwd.client-ip.80-tcp={mode}")
    assert served.modes()["[::]:8080"] == mode
    assert served.modes()["[::]:8080/udp"] == "none"
    for host in (HOST_V6, HOST_V4):
        visit(served, host)
    eventually(lambda: len(seen(served)) == 2, "Apache has logged both")
    assert seen(served) == [CLIENT_V6, CLIENT_V4]


def test_without_labels_it_is_docker_proxy(served: Served) -> None:
    run(served)
    for host, client in ((HOST_V6, BRIDGE_V4), (HOST_V4, CLIENT_V4)):
        for protocol in ("tcp", "udp"):
            assert ask(served.engine, protocol, host, 8080) == [f"from {client} hello"]
    assert set(served.modes().values()) == {"none"}
    assert not diverts(served)


def test_datagrams_have_a_header(served: Served) -> None:
    run(served, "--label", "v6fwd.client-ip.80-udp=proxy-v2")
    for host in (HOST_V6, HOST_V4):
        [answer] = ask(served.engine, "tcp", host, 8080)
        assert "QUIT" not in answer
        [answer] = ask(served.engine, "udp", host, 8080)
        assert "QUIT" in answer, "every datagram has the header, IPv4's as well"


def test_a_wrong_label_refuses_its_port(served: Served) -> None:
    """One line says why, and `docker status`; the other ports are served."""
    labels = ("--label", "v6fwd.client-ip.80-tcp=proxy-v3")
    served.engine.run("--name", "one", *PUBLISHED, *labels, "echo", "80")
    eventually(lambda: len(served.modes()) == 2, "its other ports are served")
    assert set(served.modes()) == {"0.0.0.0:8080/udp", "[::]:8080/udp"}
    lines = [line for line in served.process.log.splitlines() if "proxy-v3" in line]
    assert len(lines) == 1
    assert lines[0].startswith("container one: label v6fwd.client-ip.80-tcp=proxy-v3: 'proxy-v3' ")
    told = served.process.command_line("docker", "status").output
    assert "[::]:8080: refused, as a label of container one is wrong" in told


def test_restart_and_status(served: Served) -> None:
    run(served, "--label", "v6fwd.client-ip.80-tcp=proxy-v1")
    before = dict(served.engine.proxies())
    served.engine.docker("restart", "--time", "1", "one")
    eventually(lambda: served.modes().keys() >= ENDPOINTS, "its ports are served")
    assert not before.keys() & dict(served.engine.proxies()).keys()
    [answer] = ask(served.engine, "tcp", HOST_V6, 8080)
    assert f"PROXY TCP6 {CLIENT_V6} {HOST_V6}" in answer
    [answer] = ask(served.engine, "tcp", HOST_V4, 8080)
    assert f"PROXY TCP4 {CLIENT_V4} {HOST_V4}" in answer
    words = ("-m", "v6fwd", "docker", "status", "--daemon-json", str(served.engine.config))
    told = served.engine.lab.run(
        "host", sys.executable, *words, "--socket", str(served.process.control)
    )
    assert told.returncode == 0, told.stderr
    pids = {f"pid {pid}" for pid, _ in served.engine.proxies()}
    mine = [re.split("  +", line) for line in told.stdout.splitlines()]
    mine = [words for words in mine if words[-1] in pids]
    assert sorted((words[0], words[3]) for words in mine) == [
        ("0.0.0.0:8080", "proxy-v1"),
        ("0.0.0.0:8080/udp", "none"),
        ("[::]:8080", "proxy-v1"),
        ("[::]:8080/udp", "none"),
    ]
    assert all(words[2] == "v6fwd serve" for words in mine)


@contextlib.contextmanager
def load(served: Served) -> Iterator[subprocess.Popen[str]]:
    """Clients that come over IPv6 while the block runs; their results are in `load.results`."""
    process = served.engine.lab.start(
        "client", sys.executable, str(LOAD), HOST_V6, "8080",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def some_more(process: subprocess.Popen[str]) -> None:
    """Wait until some more clients have been served."""
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline()


def results(process: subprocess.Popen[str]) -> dict[str, int]:
    """What became of all of them."""
    told, _ = process.communicate(timeout=30)
    found: dict[str, int] = json.loads(told.splitlines()[-1])
    return found


def test_the_daemon_is_killed_under_load(served: Served) -> None:
    """The shim has the socket, dockerd's or the daemon's: nobody notices."""
    run(served, "--label", "v6fwd.client-ip=proxy-v2")
    with load(served) as process:
        some_more(process)
        served.stop(signal.SIGKILL)
        served.start()
        some_more(process)
        found = results(process)
    assert found.pop("served") > 100
    assert not found
    for protocol in ("tcp", "udp"):
        for host in (HOST_V6, HOST_V4):
            [answer] = ask(served.engine, protocol, host, 8080)
            assert "QUIT" in answer
    assert set(served.modes().values()) == {"proxy-v2"}


def test_a_daemon_takes_over_under_load(served: Served) -> None:
    run(served, "--label", "v6fwd.client-ip=proxy-v2")
    with load(served) as process:
        some_more(process)
        first = served.process
        served.start()
        assert first.wait() == 0
        some_more(process)
        found = results(process)
    assert found.keys() == {"served"}
    assert set(served.modes().values()) == {"proxy-v2"}
    [answer] = ask(served.engine, "udp", HOST_V4, 8080)
    assert "QUIT" in answer


def test_ipv4_clients_wait_for_the_next_daemon(served: Served) -> None:
    """A clean stop leaves the redirect: the container would take a header from anybody."""
    run(served, "--label", "v6fwd.client-ip=proxy-v2")
    served.stop()
    assert diverts(served)
    words = (sys.executable, str(ASK), "tcp", HOST_V4, "8080")
    client = served.engine.lab.start("client", *words, stdout=subprocess.PIPE, text=True)
    served.start()
    told, _ = client.communicate(timeout=30)
    assert "QUIT" in told, "it has got its header"


def test_docker_user_judges_redirected_clients(served: Served) -> None:
    """A label about headers must not open a port that is blocked."""
    run(served, "--label", "v6fwd.client-ip=proxy-v2")
    lab = served.engine.lab
    ban = ("DOCKER-USER", "-s", CLIENT_V4, "-j", "DROP")
    lab.run("host", "iptables", "-w", "-I", *ban).check_returncode()
    try:
        eventually(lambda: reaches_nobody(served), "the ban holds")
        [answer] = ask(served.engine, "tcp", HOST_V6, 8080)
        assert "QUIT" in answer, "it is about IPv4"
    finally:
        lab.run("host", "iptables", "-w", "-D", *ban).check_returncode()
    eventually(lambda: not reaches_nobody(served), "the ban has gone")
    [answer] = ask(served.engine, "tcp", HOST_V4, 8080)
    assert "QUIT" in answer


def test_rules_go_before_labels(served: Served) -> None:
    """And a reload is enough for them."""
    run(served, "--label", "v6fwd.client-ip=proxy-v2")
    config = served.process.config
    rule = '[[docker.rule]]\nhost-port = "8080/tcp"\ncontainer = "o*"\nclient-ip = "none"\n'
    before = config.read_text()
    config.write_text(f"{before}\n{rule}")
    served.process.reload()
    eventually(lambda: served.modes()["[::]:8080"] == "none", "the rule goes")
    assert served.modes()["[::]:8080/udp"] == "proxy-v2"
    config.write_text(before)
    served.process.reload()
    eventually(lambda: served.modes()["[::]:8080"] == "proxy-v2", "the label goes again")


def test_twenty_ports(served: Served) -> None:
    ports = range(9000, 9020)
    label = ("--label", "v6fwd.client-ip.9007=proxy-v1")
    served.engine.run(
        "--name", "many", *label, "--publish", "9000-9019:9000-9019", "echo", "9000", "9019"
    )
    eventually(lambda: len(served.modes()) == 40, "all are served")
    answers = ask(served.engine, "tcp", HOST_V6, *ports)
    assert [at for at, answer in enumerate(answers) if "PROXY TCP6" in answer] == [7]
    assert all(answer.endswith("hello") for answer in answers)


def test_the_engine_restarts_under_a_container(served: Served) -> None:
    """With live-restore the container lives on, and its ports' modes are those that they were."""
    run(served, "--label", "v6fwd.client-ip=proxy-v2")
    before = dict(served.engine.proxies())
    served.engine.stop()
    eventually(lambda: not served.modes(), "its ports are closed")
    for _ in range(5):  # a change of the rules may be gathered with others
        assert reaches_nobody(served), "the container lives on, and takes a header from anybody"
    served.engine.start(**served.environment())
    assert not before.keys() & dict(served.engine.proxies()).keys()
    eventually(lambda: set(served.modes().values()) == {"proxy-v2"}, "the mode is known")
    for host in (HOST_V6, HOST_V4):
        [answer] = ask(served.engine, "tcp", host, 8080)
        assert "QUIT" in answer


def test_without_a_userland_proxy(served: Served) -> None:
    """dockerd starts no shim; we listen for who asks for it."""
    engine = served.engine
    with without_userland_proxy(served):
        label = ("--label", "v6fwd.client-ip=proxy-v1")
        publish = ("--publish", "8080:80/tcp")
        engine.run("--name", "one", *label, *publish, "echo", "80")
        eventually(lambda: served.modes() == {"[::]:8080": "proxy-v1"}, "it is served")
        [answer] = ask(engine, "tcp", HOST_V6, 8080)
        assert f"PROXY TCP6 {CLIENT_V6}" in answer
        assert ask(engine, "tcp", HOST_V4, 8080) == [f"from {CLIENT_V4} hello"]
        assert "IPv4 clients arrive without a header" in served.log
        engine.run("--name", "another", "--publish", "8081:80", "echo", "80")
        engine.docker("stop", "--time", "1", "one")
        engine.run("--name", "squatter", "echo", "80")  # has the address that was free
        engine.docker("start", "one")
        eventually(lambda: "[::]:8080" in served.modes(), "it is served")
        [answer] = ask(engine, "tcp", HOST_V6, 8080)
        assert f"PROXY TCP6 {CLIENT_V6}" in answer
        assert served.modes().keys() == {"[::]:8080"}, "nobody asked for the others"
        engine.remove("one", "another", "squatter")


def test_the_engine_is_killed(served: Served) -> None:
    """The last one of this module: the kernel tells the shims, and they tell the daemon.

    The container lives on, so its IPv4 clients must not reach it without a header.
    """
    run(served, "--label", "v6fwd.client-ip=proxy-v2")
    served.engine.stop(signal.SIGKILL)
    eventually(lambda: not served.modes() and not served.engine.proxies(), "all is closed")
    for _ in range(5):
        assert reaches_nobody(served)
