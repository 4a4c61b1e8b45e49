"""For tests with a real rootless Engine: Debian's, run by an ordinary user on a lab's host.

The user is known in a mount namespace of the test's own alone, as are the checkout and its Python,
which may be where he may not look. RootlessKit makes the namespaces that dockerd lives in.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.engine import ENGINES, PATIENCE, Engine
from tests.support.paths import ROOT
from tests.support.process import eventually
from v6fwd.demo.lab import Lab

PROGRAMS = ("rootlesskit", "slirp4netns", "newuidmap", "nsenter", "systemd-socket-activate")
START = "/usr/share/docker.io/contrib/dockerd-rootless.sh"
USER = 4242

_MOUNTS = """
set -e
cd {folder}
grep -v :{user}: /etc/passwd >passwd
echo 'gast:x:{user}:{user}::{folder}:/bin/sh' >>passwd
echo gast:200000:65536 >subid
mount --bind passwd /etc/passwd
mount --bind subid /etc/subuid
mount --bind subid /etc/subgid
mknod -m 666 tun c 10 200
mount --bind tun /dev/net/tun
mount -t cgroup2 none /sys/fs/cgroup
mount -t proc -o hidepid=2 proc /proc # the rest of the machine is none of the user's business
mount -t tmpfs -o mode=755 none /mnt
cd /mnt
mkdir checkout python folder upper work
mount --bind {root} checkout
mount --bind {prefix} python
mount --bind {folder} folder
if ! [ -k /tmp ]; then # RootlessKit makes a folder there
    chmod 1777 upper
    mount -t overlay -o lowerdir=/tmp,upperdir=/mnt/upper,workdir=/mnt/work none /tmp
    mount --bind folder {folder}
fi
echo ready
exec sleep infinity
"""
_V6FWD = """\
#!/bin/sh
PYTHONPATH=/mnt/checkout exec /mnt/python/bin/{python} -m v6fwd "$@"
"""


class RootlessEngine(Engine):
    """dockerd of a user, whose XDG_RUNTIME_DIR and HOME are its folder."""

    def __init__(self, lab: Lab, folder: Path, driver: str, **settings: Any) -> None:
        super().__init__(lab, folder, ENGINES["20.10"], **settings)
        self._driver = driver
        program = folder / "bin" / "v6fwd"
        program.parent.mkdir()
        program.write_text(_V6FWD.format(python=Path(sys.executable).name))
        program.chmod(0o755)
        folder.chmod(0o755)
        for path in (folder, self.config):
            os.chown(path, USER, USER)

    def start(self, **environment: str) -> None:
        """Run it; returns when it answers."""
        if self._ground is None:
            self._ground = self._hold_mounts()
        driver = {"DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER": self._driver}
        process = self.spawn(
            f"exec sh {START} --config-file {self.config}", "dockerd", **driver | environment
        )
        self._process = process
        eventually(
            lambda: process.poll() is not None or self._answers(), "the engine answers", PATIENCE
        )
        assert process.poll() is None, self.log[-4000:]

    def spawn(self, script: str, name: str, **environment: str) -> subprocess.Popen[Any]:
        """Start a shell script as the user on the host, its output in the file NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            words = self._as_user(script, environment)
            return self.lab.start("host", *words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def shell(self, script: str) -> str:
        """Run a shell script as the user on the host; gives its output."""
        done = self.lab.run("host", *self._as_user(script, {}))
        assert done.returncode == 0, f"{script}: {done.stderr}\n{self.log[-3000:]}"
        return done.stdout.strip()

    def _as_user(self, script: str, environment: dict[str, str]) -> list[str]:
        assert self._ground is not None
        paths = {
            "HOME": self.folder,
            "XDG_RUNTIME_DIR": self.folder,
            "DOCKER_HOST": f"unix://{self.socket}",
            "PATH": f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        settings = [f"{name}={value}" for name, value in (paths | environment).items()]
        user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        enter = ("nsenter", "--target", str(self._ground.pid), "--mount", f"--wd={self.folder}")
        return [*enter, *user, "env", "-i", *settings, "sh", "-ec", script]

    def _hold_mounts(self) -> subprocess.Popen[Any]:
        script = _MOUNTS.format(
            folder=shlex.quote(str(self.folder)),
            root=shlex.quote(str(ROOT)),
            prefix=shlex.quote(sys.prefix),
            user=USER,
        )
        holder = self.lab.start("host", "sh", "-c", script, stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        return holder
