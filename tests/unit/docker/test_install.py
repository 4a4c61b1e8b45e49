"""`v6fwd docker install|uninstall|status`, on files of the test's own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from v6fwd.cli import main
from v6fwd.docker.install import SHIM, find_shim
from v6fwd.docker.shim.published import PublishedPort, ServedBy, published_ports, split_command
from v6fwd.model import Endpoint, Forward, Protocol

BEFORE = b'{\n\t"live-restore": true\n}\n'
Docker = Callable[[str], Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "docker" / "daemon.json"
    path.parent.mkdir()
    return path


@pytest.fixture
def docker(path: Path) -> Docker:
    return lambda command: CliRunner().invoke(main, ["docker", command, "--daemon-json", str(path)])


def test_install_twice_and_uninstall_twice(docker: Docker, path: Path) -> None:
    path.write_bytes(BEFORE)
    path.chmod(0o640)
    for words in (f"is {find_shim()} now", "already; nothing to do"):
        result = docker("install")
        assert result.exit_code == 0
        assert words in result.output
        assert path.read_bytes() == BEFORE.replace(
            b"true", f'true,\n\t"userland-proxy-path": "{find_shim()}"'.encode()
        )
        assert path.with_name("daemon.json.before-v6fwd").read_bytes() == BEFORE
        assert path.stat().st_mode & 0o777 == 0o640
    assert f"userland-proxy-path is {find_shim()}\n" in docker("status").output
    assert "systemctl restart docker" in docker("uninstall").output
    assert "nothing to do" in docker("uninstall").output
    assert path.read_bytes() == BEFORE
    assert os.listdir(path.parent) == ["daemon.json"]


@pytest.mark.parametrize("folder_exists", [True, False])
def test_no_file_before(docker: Docker, path: Path, folder_exists: bool) -> None:
    if not folder_exists:
        path.parent.rmdir()
    assert "userland-proxy-path is not set" in docker("status").output
    assert "nothing to do" in docker("uninstall").output
    assert docker("install").exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o644
    assert docker("uninstall").exit_code == 0
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("before", [b"", b"\n", b"{}"])
def test_an_empty_file_is_one_again(docker: Docker, path: Path, before: bytes) -> None:
    path.write_bytes(before)
    docker("install")
    docker("uninstall")
    assert path.read_bytes() == before


def test_a_file_that_is_kept_elsewhere(docker: Docker, path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "kept.json"
    elsewhere.write_bytes(BEFORE)
    path.symlink_to(elsewhere)
    docker("install")
    assert path.is_symlink()
    assert SHIM.encode() in elsewhere.read_bytes()


@pytest.mark.parametrize("command", ["install", "uninstall", "status"])
def test_what_cannot_be_read_is_left(docker: Docker, path: Path, command: str) -> None:
    path.write_text('{"a": 1,}')
    result = docker(command)
    assert result.exit_code == 1
    error = "is left as it is: it is not JSON: Expecting '\"', line 1, column 9"
    assert result.output == f"v6fwd docker: {path} {error}\n"
    assert path.read_text() == '{"a": 1,}'
    assert os.listdir(path.parent) == ["daemon.json"]


def test_a_proxy_of_somebody_else(docker: Docker, path: Path) -> None:
    theirs = b'{"userland-proxy-path": "/opt/other"}'
    path.write_bytes(theirs)
    assert "nothing to do" in docker("uninstall").output
    docker("install")
    docker("uninstall")
    assert path.read_bytes() == theirs


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_without_root_it_asks_whose_docker_is_meant(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rootless Docker's file would be changed, and root's Docker would not notice."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "docker" / "daemon.json"
    refused = CliRunner().invoke(main, ["docker", command])
    assert refused.exit_code == 1
    assert "/etc/docker/daemon.json is root's, so run this as root" in refused.output
    assert f"{file} is read by a rootless Docker of yours" in refused.output
    assert not file.exists()
    told = CliRunner().invoke(main, ["docker", command, "--rootless"])
    assert told.exit_code == 0
    assert f"{file}: userland-proxy-path is" in told.output
    assert file.exists() is (command == "install")
    assert ("docs/rootless.md" in told.output) is (command == "install")


def test_uninstall_says_what_hangs(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Forward(Endpoint("::", 8080), Endpoint("172.17.0.2", 80))
    ports = [PublishedPort(forward, ServedBy.DAEMON, 1), PublishedPort(forward, ServedBy.DOCKER, 2)]
    monkeypatch.setattr("v6fwd.cli.docker.published_ports", lambda: ports)
    docker("install")
    told = docker("uninstall").output
    assert "1 published port left with v6fwd until the containers restart" in told
    assert "v6fwd docker release" in told


def test_status_says_why_a_port_is_not_served(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def port(number: int, served_by: ServedBy) -> PublishedPort:
        return PublishedPort(
            Forward(Endpoint("::", number), Endpoint("172.17.0.2", 80)), served_by, number
        )

    ports = [port(1, ServedBy.DAEMON), port(2, ServedBy.DAEMON), port(3, ServedBy.STANDALONE)]
    held = [
        {"listen": "[::]:1", "target": "172.17.0.2:80", "why": "drained until the next reload"},
        {"listen": "[::]:3", "target": "172.17.0.2:80", "why": "docker restart \x1b[2Jweb"},
    ]
    monkeypatch.setattr("v6fwd.cli.docker.published_ports", lambda: ports)
    answer = {"forwards": [], "held": held}
    monkeypatch.setattr("v6fwd.cli.docker.ask", lambda *_: iter([answer]))
    told = docker("status").output.splitlines()
    modes = [re.split("  +", line)[3:5] for line in told[-5:-2]]
    assert modes == [["held", "see below"], ["waits for v6fwd serve", "-"], ["none", "-"]]
    assert told[-2:] == [
        "[::]:1: drained until the next reload",
        "[::]:3: docker restart \\x1b[2Jweb",
    ]


def test_status_marks_a_mode_that_the_container_does_not_expect(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [
        PublishedPort(Forward(Endpoint("::", at), Endpoint("172.17.0.2", 80)), ServedBy.DAEMON, at)
        for at in (1, 2)
    ]
    forward = {"state": "open", "client_ip": "proxy-v2", "flows": 1, "ended": 1}
    text = "172.17.0.2:80 ended 20 of 20 connections"
    forwards = [
        {**forward, "listen": "[::]:1", "mismatch": text},
        {**forward, "listen": "[::]:2"},
        {**forward, "listen": "[::]:99", "mismatch": "not Docker's"},
    ]
    monkeypatch.setattr("v6fwd.cli.docker.published_ports", lambda: ports)
    monkeypatch.setattr("v6fwd.cli.docker.ask", lambda *_: iter([{"forwards": forwards}]))
    told = docker("status").output.splitlines()
    modes = [re.split("  +", line)[3] for line in told[-3:-1]]
    assert modes == ["proxy-v2 (mismatch)", "proxy-v2"]
    assert told[-1] == f"[::]:1: {text}"


def test_proxies_switched_off(docker: Docker, path: Path) -> None:
    path.write_text('{"userland-proxy": false}')
    assert "dockerd starts no proxy at all" in docker("install").output


FLAGS = [
    "-proto",
    "tcp",
    "-host-ip",
    "::",
    "-host-port",
    "8080",
    "-container-ip",
    "172.17.0.2",
    "-container-port",
    "80",
]
CODE = "import os\nfrom v6fwd.docker.shim.standalone import main\n"
COMMANDS = {
    ServedBy.DAEMON: ["/v/hold-x86_64", "/run/v6fwd/shims", "5", f"/bin/{SHIM}", *FLAGS],
    ServedBy.STANDALONE: ["/usr/bin/python3", "-I", "-c", CODE, "/usr/sbin/docker-proxy", *FLAGS],
    ServedBy.DOCKER: ["/usr/sbin/docker-proxy", *FLAGS],
}


@pytest.mark.parametrize(("served_by", "words"), COMMANDS.items())
def test_which_program(served_by: ServedBy, words: list[str]) -> None:
    assert split_command(words) == (served_by, FLAGS)


def test_a_relay_that_release_0_1_started() -> None:
    code = CODE.replace("v6fwd.docker.shim.standalone", "v6fwd.docker.proxy")
    words = ["/usr/bin/python3", "-I", "-c", code, "", *FLAGS]
    assert split_command(words) == (ServedBy.STANDALONE, FLAGS)


@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        ["/bin/sh", "-c", "sleep 1"],
        ["/bin/sh", f"/usr/bin/{SHIM}", *FLAGS],  # has not made up its mind
        ["vim", "-p", "a", SHIM, "b"],
        ["/usr/bin/python3", "-I", "-c", "pass", "", *FLAGS],
    ],
)
def test_other_programs(words: list[str]) -> None:
    assert split_command(words) is None


def test_the_ports_of_a_host(tmp_path: Path) -> None:
    """By port; what is no process, has no flags or has other ones is left out."""
    udp = [word.replace("tcp", "udp").replace("8080", "53") for word in FLAGS]
    lines = {
        "30": COMMANDS[ServedBy.DAEMON],
        "20": ["/usr/sbin/docker-proxy", *udp],
        "10": ["/usr/sbin/docker-proxy", "-v"],
        "11": ["/usr/sbin/docker-proxy", "-proto", "sctp", *FLAGS[2:]],
        "self": COMMANDS[ServedBy.DAEMON],
    }
    for name, words in lines.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cmdline").write_text("".join(f"{word}\0" for word in words))
    (tmp_path / "40").mkdir()
    name_server = Endpoint("172.17.0.2", 80, protocol=Protocol.UDP)
    dns = Forward(Endpoint("::", 53, protocol=Protocol.UDP), name_server)
    web = Forward(Endpoint("::", 8080), Endpoint("172.17.0.2", 80))
    assert published_ports(tmp_path) == [
        PublishedPort(dns, ServedBy.DOCKER, 20),
        PublishedPort(web, ServedBy.DAEMON, 30),
    ]
