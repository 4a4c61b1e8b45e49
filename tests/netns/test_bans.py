"""Bans of clients with addresses of their own: TCP, UDP, IPv4, pseudo addresses, without root."""

from __future__ import annotations

import json
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon_scene import Scene
from tests.support.inside import UDP
from tests.support.rig import was_reset
from tests.support.servers import open_folder
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6

pytestmark = pytest.mark.netns

NET = "2001:db8:1::/64"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where nobody may enter, and where the daemon keeps its state."""
    with open_folder() as folder:
        monkeypatch.setenv("STATE_DIRECTORY", str(folder / "state"))
        yield folder


def say(scene: Scene, *words: str) -> str:
    """Run a command that must go well; gives what it printed."""
    result = scene.daemon.command_line(*words)
    assert result.exit_code == 0, result.output
    return str(result.output)


def banned(scene: Scene) -> list[str]:
    return [each["network"] for each in json.loads(say(scene, "bans", "--json"))["bans"]]


def is_refused(scene: Scene, source: str) -> bool:
    """Whether a new TCP client is reset; that can come before connect(2) has returned."""
    try:
        return was_reset(scene.client(source))
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("source", "ban", "other"), [(CLIENT_V6, NET, CLIENT_V4), (CLIENT_V4, CLIENT_V4, CLIENT_V6)]
)
def test_tcp(scene: Scene, source: str, ban: str, other: str) -> None:
    scene.configure("none")
    scene.run()
    server = scene.server("0.0.0.0")
    flow, _, _ = scene.connected(server, source)
    others, behind, _ = scene.connected(server, other)
    assert "1 flow reset" in say(scene, "ban", ban)
    assert was_reset(flow)
    assert all(is_refused(scene, source) for _ in range(20))
    others.sendall(b"more")
    assert behind.recv(4) == b"more"
    scene.connected(server, other)
    say(scene, "unban", ban)
    scene.connected(server, source)


def test_bans_stay_when_forwards_change(scene: Scene) -> None:
    """A reload gives a port another way to accept; a new worker and a new forward begin with it."""
    scene.configure("none")
    scene.run()
    server = scene.server("0.0.0.0")
    say(scene, "ban", NET)
    scene.configure("none", more="[defaults]\nconnect-timeout = 9\n")
    text = scene.daemon.config.read_text().replace('\n[defaults]\nclient-ip = "none"', "")
    scene.daemon.config.write_text(text)
    scene.daemon.reload()
    assert all(is_refused(scene, CLIENT_V6) for _ in range(10))
    for worker in scene.daemon.workers():
        scene.daemon.kill_worker(worker)
    assert all(is_refused(scene, CLIENT_V6) for _ in range(10))
    scene.connected(server, CLIENT_V4)
    say(scene, "unban", NET)
    scene.connected(server, CLIENT_V6)


def test_udp(scene: Scene) -> None:
    scene.configure("none")
    scene.run()
    server = scene.server("0.0.0.0", UDP)
    one, other = scene.client(CLIENT_V6, UDP), scene.client(CLIENT_V4, UDP)
    one.send(b"one")
    assert server.recv(10) == b"one"
    assert "1 flow reset" in say(scene, "ban", NET)
    one.send(b"late")
    other.send(b"other")
    assert server.recv(10) == b"other"
    assert banned(scene) == [NET]


def test_a_pseudo_address_bans_the_network_behind_it(scene: Scene) -> None:
    scene.configure("transparent")
    scene.run()
    server = scene.server("0.0.0.0")
    flow, _, seen = scene.connected(server, CLIENT_V6)
    assert seen.startswith(("24", "25"))
    said = say(scene, "ban", seen, "--for", "1h")
    assert said.startswith(f"{NET}, which is {seen}, is banned until")
    assert was_reset(flow)
    assert is_refused(scene, CLIENT_V6)
    scene.connected(server, CLIENT_V4)
    assert say(scene, "unban", seen) == f"{NET}, which is {seen}, is no longer banned\n"
    scene.connected(server, CLIENT_V6)


def test_a_daemon_that_gives_up_root_keeps_them(scene: Scene, folder: Path) -> None:
    """Its user has a folder of its own; what root had written before is its, too."""
    scene.configure("none")
    scene.run()
    say(scene, "ban", NET)
    scene.daemon.signal(signal.SIGTERM)
    assert scene.daemon.wait() == 0
    scene.configure("none", more='user = "nobody"')
    scene.run()
    assert banned(scene) == [NET]
    say(scene, "ban", CLIENT_V4)
    (file,) = (folder / "state" / "daemon").iterdir()
    assert file.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert file.stat().st_mode & 0o777 == 0o600
    scene.daemon.signal(signal.SIGTERM)
    assert scene.daemon.wait() == 0
    scene.run()
    assert banned(scene) == [CLIENT_V4, NET]
    assert is_refused(scene, CLIENT_V6)
    assert "ban-file" not in scene.daemon.log
