"""Rootless Docker, and the commands of docs/rootless.md."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import ask
from tests.support.engine import engine_lab
from tests.support.images import load_echo
from tests.support.paths import ROOT
from tests.support.process import eventually
from tests.support.rootless import PROGRAMS, START, RootlessEngine
from tests.support.shim import install
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6, stop

pytestmark = [
    pytest.mark.server(*PROGRAMS),
    pytest.mark.skipif(not Path(START).exists(), reason=f"no {START}"),
]

PAGE = (ROOT / "docs" / "rootless.md").read_text()
ECHO = "--entrypoint /usr/bin/socat echo TCP6-LISTEN:80,ipv6only=0,fork,reuseaddr"
BOTH = f"{ECHO} 'SYSTEM:echo from $SOCAT_PEERADDR; cat'"
"""For `docker run`: a server on `::` that tells from where it is asked, and what it is sent."""


def block(start: str) -> str:
    """The indented lines of the page that begin with these words, as one text."""
    found = [each for each in re.findall(r"(?:^(?:    .*)?\n)+", PAGE, re.MULTILINE)
             if each.strip().startswith(start)]  # fmt: skip
    (text,) = found
    return re.sub("^    ", "", text, flags=re.MULTILINE).strip()


@contextlib.contextmanager
def rootless(driver: str, *, shim: bool = False) -> Iterator[RootlessEngine]:
    """An engine with `echo`."""
    folder = Path(tempfile.mkdtemp(prefix="v6fwd-rootless-"))
    try:
        with engine_lab() as lab:
            settings = {"userland-proxy-path": str(install(folder))} if shim else {}
            engine = RootlessEngine(lab, folder, driver, **settings)
            try:
                engine.start()
                load_echo(engine)
                yield engine
            finally:
                engine.end()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def engine() -> Iterator[RootlessEngine]:
    """With RootlessKit's default port driver, and the shim as `docker install` leaves it."""
    with rootless("builtin", shim=True) as engine:
        yield engine


@pytest.fixture
def clean(engine: RootlessEngine) -> Iterator[RootlessEngine]:
    """The same; a test leaves no container behind."""
    yield engine
    engine.remove(*engine.docker("ps", "--all", "--quiet").split())


def clients_seen(engine: RootlessEngine) -> list[str]:
    """What the container tells an IPv6 client, and an IPv4 one."""
    return [ask(engine, "tcp", host, 8080)[0] for host in (HOST_V6, HOST_V4)]


def address_in(said: str) -> str:
    """The address in `from [2001:0db8:...] hello`, as we write it."""
    address = ipaddress.IPv6Address(said.partition("[")[2].partition("]")[0])
    return str(address.ipv4_mapped or address)


def is_open(engine: RootlessEngine) -> bool:
    """Whether somebody listens on the host."""
    return any(each.endswith(":8080") for each in engine.listeners())


def test_a_published_port_loses_all_clients(clean: RootlessEngine) -> None:
    """The shim leaves it to RootlessKit, without which nobody would listen on the host."""
    clean.docker("run", "--detach", "--publish", "8080:80", "echo", "80")
    assert clients_seen(clean) == [f"from {BRIDGE_V4} hello"] * 2


def test_with_a_header(clean: RootlessEngine) -> None:
    run, forward = block("docker run --detach --publish").splitlines()
    clean.shell(run.replace("IMAGE", "echo 80"))
    process = clean.spawn(f"exec {forward.replace('proxy-v2', 'proxy-v1')}", "forward")
    try:
        headers = [f"PROXY TCP6 {CLIENT_V6} {HOST_V6} ", f"PROXY TCP4 {CLIENT_V4} {HOST_V4} "]
        for seen, header in zip(clients_seen(clean), headers, strict=True):
            assert seen.startswith(f"from {BRIDGE_V4} {header}")
    finally:
        stop(process)


def test_transparent(clean: RootlessEngine) -> None:
    clean.shell(block("docker run --detach --name").replace("IMAGE", BOTH))
    address = clean.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web")
    config = block("[control]").replace("172.17.0.2", address)
    for place in ("/run/user/1000", "/home/user"):
        config = config.replace(place, str(clean.folder))
    (clean.folder / "v6fwd.toml").write_text(config)
    process = clean.spawn(f"exec {block('systemd-socket-activate')}", "serve")
    try:
        eventually(lambda: is_open(clean), "systemd-socket-activate listens")
        assert [address_in(each) for each in clients_seen(clean)] == [CLIENT_V6, CLIENT_V4]
    finally:
        stop(process)


def diagnose(engine: RootlessEngine) -> dict[str, dict[str, str]]:
    """What the doctor says when the user asks it, by name."""
    done = engine.shell("unset DOCKER_HOST; v6fwd doctor --json || [ $? = 1 ]")
    return {finding["id"]: finding for finding in json.loads(done)["findings"]}


def test_the_doctor_names_it_and_its_mend_brings_the_client_back(clean: RootlessEngine) -> None:
    """Not one word of labels, which say nothing here."""
    route = ("ip", "-6", "route", "replace", "default", "via", CLIENT_V6, "dev", "eth0")
    clean.lab.run("host", *route).check_returncode()
    clean.docker("run", "--detach", "--name", "web", "--publish", "8080:80", "echo", "80")
    findings = diagnose(clean)
    assert findings.keys() == {"rootless"}
    first, _, second = findings["rootless"]["mend"].partition("; ")
    publish = first.removeprefix("recreate it with: ").split()
    forward = second.partition(": ")[2].partition(" (")[0].replace("proxy-v2", "proxy-v1")
    clean.remove("web")
    clean.docker("run", "--detach", *publish, "echo", "80")
    process = clean.spawn(f"exec {forward}", "mended")
    try:
        assert f"PROXY TCP6 {CLIENT_V6} " in ask(clean, "tcp", HOST_V6, 8080)[0]
        assert diagnose(clean) == {}
    finally:
        stop(process)


def test_with_the_other_port_driver() -> None:
    """It keeps the addresses of IPv4 clients, and has nothing for IPv6."""
    with rootless("slirp4netns") as engine:
        engine.docker("run", "--detach", "--publish", "8080:80", "echo", "80")
        assert ask(engine, "tcp", HOST_V4, 8080) == [f"from {CLIENT_V4} hello"]
        assert diagnose(engine).keys() == {"no-ipv6-route", "ipv4-only-listener"}


def test_from_the_host_s_network_it_says_that_it_may_not(clean: RootlessEngine) -> None:
    """It could enter the container's namespace, but not come back."""
    clean.docker("run", "--detach", "--name", "web", "echo", "80")
    pid = clean.docker("inspect", "--format", "{{.State.Pid}}", "web")
    told = clean.shell(
        "nsenter --user --mount --preserve-credentials --target=$(cat docker.pid) sh -c '"
        "[ ! -L /run/v6fwd ] || rm /run/v6fwd; v6fwd forward [::]:8080 172.17.0.2:80"
        f" --client-ip transparent --target-netns {pid} --pseudo-store $HOME/pseudo' 2>&1 || :"
    )
    assert told == f"cannot use network namespace {pid}: needs CAP_SYS_ADMIN"
