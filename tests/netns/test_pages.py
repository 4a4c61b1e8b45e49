"""Command blocks of the pages, run as they stand there, on a host of the test's own.

`docker:web:80` is run in tests/docker/test_targets.py, README's way to a container in
tests/docker/test_readme.py, docs/servers.md in tests/servers/test_servers_page.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import PAGES, blocks, fenced, lines, words
from tests.support.paths import ROOT
from tests.support.process import ForwardProcess, eventually
from v6fwd.demo.lab import CONTAINER_V4, HOST_V6, Lab

pytestmark = pytest.mark.netns

FORWARDS = sorted(
    {
        line.partition("#")[0].rstrip()
        for page in PAGES
        if page != "docs/rootless.md"  # run in tests/docker/test_rootless.py
        for line in lines(page, "v6fwd forward")
        if "docker:" not in line
    }
)
HOSTS = 'mount --bind {} /etc/hosts && exec "$@"'
"""`ip netns exec` has mounts of its own."""


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    """One for all tests: each cleans up."""
    with Lab() as lab:
        yield lab


@pytest.mark.parametrize("line", FORWARDS)
def test_a_forward_becomes_ready(host: Lab, line: str, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{CONTAINER_V4} app.internal\n")
    prefix = host.command("host", "sh", "-c", HOSTS.format(hosts), "sh")
    forward = ForwardProcess(tmp_path)
    try:
        forward.start(*words(line)[1:], prefix=prefix)
        forward.signal(signal.SIGTERM)
        assert forward.wait() == 0
    finally:
        forward.end()


def test_forwards_are_found() -> None:
    assert len(FORWARDS) > 12
    assert {mode for line in FORWARDS for mode in line.split()} >= {"transparent", "forwarded"}


FIREWALL = [
    line.partition("#")[0].strip() for block in blocks("docs/firewall.md") for line in block
]
CLOSED = {
    "nft": "add table inet filter; add chain inet filter input"
    " { type filter hook input priority 0; policy drop; }; add rule inet filter input icmpv6 type"
    " != echo-request accept",
    "ip6tables": "ip6tables -P INPUT DROP && ip6tables -A INPUT -p ipv6-icmp -j ACCEPT",
}
OPEN = {"nft": "nft flush ruleset", "ip6tables": "ip6tables -P INPUT ACCEPT && ip6tables -F"}


@pytest.mark.server("nft", "ip6tables")
@pytest.mark.parametrize("program", CLOSED)
def test_a_line_opens_the_firewall(host: Lab, program: str, tmp_path: Path) -> None:
    (line,) = (line for line in FIREWALL if line.startswith(program))
    forward = ForwardProcess(tmp_path)
    try:
        forward.start("[::]:8080", f"{CONTAINER_V4}:80", prefix=host.command("host"))
        closed = CLOSED[program]
        run(host, f"nft '{closed}'" if program == "nft" else closed)
        assert not is_open(host, 1)
        run(host, line)
        eventually(lambda: is_open(host, 1), "the port is open")
    finally:
        forward.end()
        run(host, OPEN[program])


def run(host: Lab, command: str) -> None:
    """Type a command on the host."""
    done = host.run("host", "sh", "-c", command)
    assert done.returncode == 0, done.stderr


def is_open(host: Lab, patience: float) -> bool:
    """Whether the client's connection is accepted within so many seconds."""
    script = f"import socket; socket.create_connection(('{HOST_V6}', 8080), {patience})"
    return not host.run("client", sys.executable, "-c", script).returncode


def test_the_way_to_a_configuration(tmp_path: Path) -> None:
    """From the example to what is in force; the last line starts the daemon itself."""
    *typed, last = lines("docs/serve.md", "v6fwd")
    assert last == "v6fwd serve -c v6fwd.toml"
    bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = "set -e\n" + "\n".join(typed)
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=os.environ | {"PATH": bin_first},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "v6fwd.toml: no mistakes, 15 forwards" in done.stdout
    assert "[[forward]] 2 of v6fwd.toml line" in done.stdout


@pytest.mark.server("promtool")
def test_prometheus_takes_the_job_and_the_query(tmp_path: Path) -> None:
    (job,) = fenced("docs/monitoring.md", "yaml")
    (query,) = fenced("docs/monitoring.md", "promql")
    (tmp_path / "prometheus.yml").write_text(job)
    rules = ROOT / "contrib" / "prometheus" / "v6fwd.rules.yml"
    recorded = f"\n  - name: page\n    rules:\n      - record: page\n        expr: {query}"
    (tmp_path / rules.name).write_text(rules.read_text() + recorded)
    done = check(tmp_path, "promtool", "check", "config", "prometheus.yml")
    assert f"SUCCESS: {rules.read_text().count('alert: ') + 1} rules found" in done


@pytest.mark.server("systemd-analyze")
@pytest.mark.parametrize("drop_in", fenced("docs/monitoring.md", "ini"))
def test_systemd_takes_the_drop_in(drop_in: str, tmp_path: Path) -> None:
    text = (ROOT / "contrib" / "systemd" / "v6fwd-docker.service").read_text()
    unit = tmp_path / "v6fwd-docker.service"
    unit.write_text(text.replace("/usr/local/bin/v6fwd", "/bin/true") + drop_in)
    words = ["systemd-analyze", "verify", "--man=no", str(unit)]
    told = subprocess.run(words, capture_output=True, text=True, check=False).stderr
    assert [line for line in told.splitlines() if "v6fwd" in line] == []
    unit.write_text(unit.read_text() + drop_in.replace("=", "X="))
    told = subprocess.run(words, capture_output=True, text=True, check=False).stderr
    assert [line for line in told.splitlines() if "v6fwd" in line] != []


def test_the_page_and_the_units_agree() -> None:
    """What docs/monitoring.md says of reload, restart and limits is what both units have."""
    page = (ROOT / "docs" / "monitoring.md").read_text()
    limits = fenced("docs/monitoring.md", "ini")[0].splitlines()
    assert "`systemctl reload v6fwd-docker` is `v6fwd reload`" in page
    assert "exits with 2 and is not\n(`RestartPreventExitStatus`)" in page
    for name in ("v6fwd.service", "v6fwd-docker.service"):
        unit = (ROOT / "contrib" / "systemd" / name).read_text().splitlines()
        assert "ExecReload=/bin/kill -HUP $MAINPID" in unit
        assert "RestartPreventExitStatus=2" in unit
        assert {f"#   {line}" for line in limits} <= set(unit)


@pytest.mark.server("logrotate")
def test_logrotate_takes_its_block(tmp_path: Path) -> None:
    (block,) = fenced("docs/monitoring.md", "text")
    log = tmp_path / "v6fwd.log"
    log.write_text("a line\n")
    (tmp_path / "v6fwd").write_text(block.replace("/var/log/v6fwd.log", str(log)))
    check(tmp_path, "logrotate", "--force", "--state", str(tmp_path / "state"), "v6fwd")
    assert log.read_text() == ""
    assert [path.name for path in tmp_path.glob("v6fwd.log.1*")] == ["v6fwd.log.1.gz"]


@pytest.mark.server("docker-compose")
def test_compose_takes_its_block(tmp_path: Path) -> None:
    (block,) = fenced("docs/compose.md", "yaml")
    (tmp_path / "docker-compose.yml").write_text(block)
    assert "v6fwd.client-ip: transparent" in check(tmp_path, "docker-compose", "config")
    (labels,) = fenced("docs/quick-start.md", "yaml")
    assert labels in block


def check(folder: Path, *command: str) -> str:
    """What a command prints that succeeds."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
