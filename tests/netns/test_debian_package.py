"""The Debian package: built, installed over this machine's files, upgraded, removed, purged.

Nothing of the machine changes: a mount namespace has an overlay of / whose changes are in memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from v6fwd import __version__

pytestmark = [pytest.mark.netns, pytest.mark.server("dpkg-deb", "unshare", "gcc")]

ROOM = """
set -eu
mount -t tmpfs none "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay none -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
for each in proc dev; do mount --rbind "/$each" "$0/root/$each"; done
mount -t tmpfs none "$0/root/run"
mount -t tmpfs none "$0/root/tmp"
cp "$1" "$0/root/tmp/v6fwd.deb"
ip link set lo up
exec chroot "$0/root" sh
"""


class Room:
    """A shell in a machine that may be changed."""

    def __init__(self, folder: Path, package: Path) -> None:
        words = ["unshare", "--mount", "--net", "--propagation", "private"]
        self._shell = subprocess.Popen(
            [*words, "sh", "-c", ROOM, str(folder), str(package)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"},
        )

    def run(self, command: str, *, status: int = 0) -> str:
        """What a command prints there."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f'({command}) </dev/null; status=$?; echo; echo "== $status"\n')
        self._shell.stdin.flush()
        lines: list[str] = []
        while not (line := self._shell.stdout.readline()).startswith("== "):
            assert line, "the shell has ended:\n" + "".join(lines)
            lines.append(line)
        text = "".join(lines).strip()
        assert int(line[3:]) == status, f"{command}: {line}{text}"
        return text

    def close(self) -> None:
        """Everything there is gone then."""
        assert self._shell.stdin is not None
        with self._shell:
            self._shell.stdin.close()
            self._shell.wait(20)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this tree."""
    work = tmp_path_factory.mktemp("deb")
    built = subprocess.run(
        [str(ROOT / "scripts" / "build-deb"), str(Path(sys.executable).parent), str(work)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    [found] = work.glob("*.deb")
    return found


@pytest.fixture
def room(package: Path, tmp_path: Path) -> Iterator[Room]:
    """A machine that has the package's file, and not the package."""
    room = Room(tmp_path, package)
    yield room
    room.close()


def test_it_is_installed_upgraded_removed_and_purged(room: Room) -> None:
    said = room.run("dpkg --force-depends --install /tmp/v6fwd.deb")
    assert "systemctl enable --now v6fwd-docker" in said, "the next step"
    assert room.run("v6fwd --version") == f"v6fwd, version {__version__}"
    assert room.run("/usr/bin/v6fwd-docker-proxy -v").endswith(__version__)
    room.run("v6fwd serve --check --config /etc/v6fwd/v6fwd.toml")
    assert "Forward connections" in room.run("gzip -dc /usr/share/man/man1/v6fwd-forward.1.gz")
    assert "2001:db8" in room.run("v6fwd demo")
    holder = room.run("ls /opt/v6fwd/lib/python3*/site-packages/v6fwd/docker/shim/hold")
    assert [name for name in holder.split() if name.startswith("hold-")], "built from its source"

    room.run("mkdir -p /etc/docker; echo '{\"debug\": true}' >/etc/docker/daemon.json")
    room.run("v6fwd docker install")
    shim = json.loads(room.run("cat /etc/docker/daemon.json"))["userland-proxy-path"]
    room.run(f"test -x {shim}")
    room.run("echo '# mine' >>/etc/v6fwd/v6fwd.toml")
    again = room.run("dpkg --force-depends --install /tmp/v6fwd.deb")
    assert "Next" not in again
    assert "# mine" in room.run("cat /etc/v6fwd/v6fwd.toml"), "a change survives an upgrade"

    room.run("dpkg --remove v6fwd")
    assert json.loads(room.run("cat /etc/docker/daemon.json")) == {"debug": True}
    room.run("test -e /opt/v6fwd", status=1)
    assert "# mine" in room.run("cat /etc/v6fwd/v6fwd.toml")
    room.run("dpkg --purge v6fwd")
    room.run("test -e /etc/v6fwd", status=1)


def test_units_name_what_is_there(room: Room) -> None:
    room.run("dpkg --force-depends --install /tmp/v6fwd.deb")
    for unit in ("v6fwd.service", "v6fwd-docker.service"):
        text = room.run(f"cat /lib/systemd/system/{unit}")
        assert "/usr/local" not in text
        start = next(line for line in text.splitlines() if line.startswith("ExecStart="))
        room.run(f"test -x {start.removeprefix('ExecStart=').split()[0]}")
        page = next(line for line in text.splitlines() if line.startswith("Documentation=file:"))
        room.run(f"test -f {page.removeprefix('Documentation=file:')}")
