"""For tests that need a machine with systemd as its first process: a user-mode Linux.

Debian's package `user-mode-linux` is a kernel that runs as an ordinary process. Its root is a
folder of this machine, `/` if nothing else is said, below an overlay in memory: what happens in
there changes nothing out here. It has a loopback device and no other network, and boots in some
seconds.

    with Machine(tmp_path, setup="...") as machine:
        machine.check("systemctl start v6fwd")

`setup` is shell that runs in the new root before systemd does. No unit of the root is enabled. What
needs kernel modules names them, as there is no udev. `eventually COMMAND` is there for scripts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.support.process import eventually

MODULES = Path("/usr/lib/uml/modules")
BOOT_PATIENCE = 90.0
"""Seconds for the boot, which takes 5 on an idle machine."""
LIFETIME = 600
"""Seconds after which it is killed in any case."""

GUARD = """
read -r -t "$2" _
kill -KILL -- "-$1"
"""
"""Kills the machine, whose processes are one group here; at the latest when the test ends."""

INIT = """\
#!/bin/sh
# The first process: makes the root, then becomes systemd. A failure ends the machine.
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc none /proc
for module in {order}; do
    busybox insmod "$module" 2>/dev/null || echo "no $module"
done
mount -t tmpfs -o size=75% none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir={root},upperdir=/mnt/upper,workdir=/mnt/work none /mnt/root
cd /mnt/root
mkdir -p machine old
mount -t hostfs -o {share} none machine
# Nothing is enabled, mounted or masked as on the machine that lends its files; no container either.
rm -rf etc/systemd/system etc/systemd/*.conf.d lib/systemd/system/*.wants .dockerenv
mkdir -p etc/systemd/system etc/systemd/journald.conf.d
: >etc/fstab
echo machine >etc/hostname
printf '[Journal]\\nStorage=volatile\\n' >etc/systemd/journald.conf.d/machine.conf
cp machine/agent.service etc/systemd/system/
. /mnt/root/machine/setup
cd /mnt/root
umount /proc
pivot_root . old
exec chroot . /lib/systemd/systemd </dev/console >/dev/console 2>&1
"""

AGENT_UNIT = """\
[Unit]
Description=Runs what the test asks for
Wants=systemd-journald.service
FailureAction=poweroff-force
SuccessAction=poweroff-force
[Service]
Environment=HOME=/root
ExecStart=/bin/bash /machine/agent
KillMode=process
"""

AGENT = """\
# Runs each N.script that appears; its status, in N.status, is complete when that appears.
PATH=/machine/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ip link set lo up
cd /machine
: >ready
while :; do
    for script in *.script; do
        [ -e "$script" ] || continue
        name=${script%.script}
        (cd / && exec bash "/machine/$script") >"$name.output" 2>&1 </dev/null
        echo $? >"$name.new"
        rm "$script"
        mv "$name.new" "$name.status"
    done
    sleep 0.05
done
"""


EVENTUALLY = """\
#!/bin/bash
while ((SECONDS < 60)); do
    bash -c "$1" && exit
    sleep 0.05
done
echo "never: $1"
exit 1
"""


class Machine:
    """One machine, from its boot to its end."""

    def __init__(
        self,
        folder: Path,
        *,
        root: Path = Path("/"),
        setup: str = "",
        modules: Iterable[str] = (),
        memory: str = "1G",
        kernel: str | None = None,
        lifetime: int = LIFETIME,
    ) -> None:
        """`folder` is empty and the test's own; `modules` are names: `veth`, `nf_tables`.

        `kernel`: the file of another one than Debian's, with all that is needed built in.
        `lifetime`: seconds until it is killed.
        """
        self.folder = folder
        self._share = folder / "share"
        self._console = folder / "console.log"
        self._memory = memory
        self._kernel = kernel or "linux.uml"
        self._lifetime = lifetime
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._share.mkdir()
        for name, text in (("agent", AGENT), ("agent.service", AGENT_UNIT), ("setup", setup)):
            (self._share / name).write_text(text)
        self.add("bin/eventually", EVENTUALLY.encode())
        init = folder / "init"
        order = "" if kernel else " ".join(load_order(("overlay", *modules)))
        words = {"order": order, "root": root, "share": self._share}
        init.write_text(INIT.format(**{key: _quoted(word) for key, word in words.items()}))
        init.chmod(0o755)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.end()

    def start(self) -> None:
        """Boot; returns when it takes orders."""
        settings = {
            "mem": self._memory,
            "umid": "machine",
            "uml_dir": f"{self.folder}/",
            "rootfstype": "hostfs",
            "rootflags": "/",
            "init": str(self.folder / "init"),
            "con0": "null,fd:1",
            "con": "null",
            "systemd.unit": "agent.service",
            "systemd.show_status": "no",
        }
        words = [f"{key}={word}" for key, word in settings.items()]
        command = [self._kernel, "ro", "quiet", *words]
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                start_new_session=True, env=os.environ | {"TMPDIR": "/dev/shm"},
            )  # fmt: skip
        self._guard = subprocess.Popen(
            ["bash", "-c", GUARD, "bash", str(self._process.pid), str(self._lifetime)],
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._wait_for("ready", BOOT_PATIENCE)

    def add(self, name: str, data: bytes) -> None:
        """Let it have a file /machine/NAME, which may be executed."""
        path = self._share / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)

    def run(
        self, script: str, patience: float = 120.0, show: IO[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script by bash as root; `stdout` has its stderr, too. One at a time.

        `show`: a file that gets what it says at once, too.
        """
        self._count += 1
        name = f"{self._count:03}"
        new = self._share / f"{name}.new-script"
        new.write_text(script)
        new.rename(self._share / f"{name}.script")
        with contextlib.ExitStack() as stack:
            if show is not None:
                stack.enter_context(_following(self._share / f"{name}.output", show))
            self._wait_for(f"{name}.status", patience)
        status = int((self._share / f"{name}.status").read_text())
        output = (self._share / f"{name}.output").read_text(errors="replace")
        return subprocess.CompletedProcess(script, status, output, "")

    def check(self, script: str, patience: float = 120.0) -> str:
        """Run a script that must succeed, each of its lines; gives what it said."""
        done = self.run(f"set -e -o pipefail\n{script}", patience)
        assert done.returncode == 0, f"{script}\n-> {done.returncode}\n{done.stdout}"
        return done.stdout

    def properties(self, unit: str, *names: str) -> list[str]:
        """What systemd says of these properties of a unit."""
        words = " ".join(f"--property {name}" for name in names)
        lines = self.check(f"systemctl show {words} {unit}").splitlines()
        found = dict(line.split("=", 1) for line in lines)
        return [found[name] for name in names]

    def processes(self, service: str) -> dict[int, dict[str, str]]:
        """The processes of a service, by id: first words of /proc/PID/status, and its `files`.

        That is the limit of open files. Programs that the service executes are not among them.
        """
        group = f"/sys/fs/cgroup/system.slice/{service}/cgroup.procs"
        read = f"for pid in $(cat {group}); do cat /proc/$pid/{{status,limits}} || :; done"
        first, second = (_statuses(self.check(f"{read} 2>/dev/null")) for _ in range(2))
        main = second[int(self.properties(service, "MainPID")[0])]
        stays = {pid: status for pid, status in second.items() if pid in first}
        return {pid: each for pid, each in stays.items() if each["Name"] == main["Name"]}

    def log(self, unit: str) -> str:
        """What a unit has said, and systemd about it."""
        return self.check(f"journalctl --no-pager --unit {unit}")

    @property
    def console(self) -> str:
        """What the kernel and systemd have said."""
        return self._console.read_text(errors="replace")

    def end(self) -> None:
        """Switch it off."""
        if self._guard is not None:
            self._guard.communicate()
        if self._process is not None:
            self._process.wait(BOOT_PATIENCE)

    def _wait_for(self, name: str, patience: float) -> None:
        path, process = self._share / name, self._process
        assert process is not None
        try:
            eventually(lambda: path.exists() or process.poll() is not None, name, patience)
        except AssertionError:
            output = path.with_suffix(".output")
            told = output.read_text(errors="replace") if output.exists() else ""
            raise AssertionError(f"no {name}\n{told}\n{self.console[-3000:]}") from None
        assert path.exists(), f"it ended, or was ended, before {name}\n{self.console[-3000:]}"


@contextlib.contextmanager
def _following(path: Path, show: IO[str]) -> Iterator[None]:
    """Copy a file that grows as long as the block runs, and then the rest of it."""
    ended = threading.Event()

    def follow() -> None:
        at, is_last = 0, False
        while not is_last:
            is_last = ended.wait(0.2)
            if path.exists():
                with path.open("rb") as file:
                    file.seek(at)
                    data = file.read()
                at += len(data)
                show.write(data.decode(errors="replace"))
                show.flush()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _statuses(told: str) -> dict[int, dict[str, str]]:
    found = {}
    for text in re.split(r"^(?=Name:)", told, flags=re.MULTILINE):
        status = dict(re.findall(r"^(\w+):\s+(\S+)", text, re.MULTILINE))
        if files := re.search(r"^Max open files\s+(\d+)", text, re.MULTILINE):
            found[int(status["Pid"])] = status | {"files": files[1]}
    return found


def _quoted(word: Any) -> str:
    return str(word) if isinstance(word, str) else shlex.quote(str(word))


def load_order(names: Iterable[str]) -> list[str]:
    """The paths of kernel modules, each behind those that it needs. Raises KeyError."""
    [folder] = MODULES.iterdir()
    lines = (folder / "modules.dep").read_text().splitlines()
    needs = {file: words.split() for file, _, words in (line.partition(":") for line in lines)}
    files = {Path(file).stem.replace("-", "_"): file for file in needs}
    order: dict[str, None] = {}
    for name in names:
        file = files[name.replace("-", "_")]
        order |= dict.fromkeys((*reversed(needs[file]), file))
    return [f"{folder}/{file}" for file in order]
