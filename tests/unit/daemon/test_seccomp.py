"""The filter of system calls: what a worker still can do, and how what it cannot do ends."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from v6fwd.daemon import syscalls
from v6fwd.daemon.seccomp import ALLOW, KILL, MACHINES, confine, program, refuse

pytestmark = pytest.mark.skipif(platform.machine() not in MACHINES, reason="no filter here")

_NO_NEW_PRIVS = 38


def run(then: Callable[[], object], *, strict: bool = False, privileged: bool = False) -> int:
    """Do something in a confined process; gives what `waitstatus_to_exitcode` makes of its end."""
    pid = os.fork()
    if not pid:
        status = 99
        try:
            ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
            assert not confine(strict=strict, privileged=privileged)
            then()
            status = 0
        except OSError as error:
            status = error.errno or 98
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def relay() -> None:
    """What a worker does, in short."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        served, _ = server.accept()
        client.sendall(b"hello")
        assert served.recv(5) == b"hello"
        client.setblocking(False)
    socket.getaddrinfo("localhost", 80)
    thread = threading.Thread(target=os.urandom, args=(1,))
    thread.start()
    thread.join()
    Path("/proc/self/status").read_text()
    os.listdir("/proc/self/fd")


@pytest.mark.parametrize("strict", [False, True])
def test_a_relay_works(strict: bool) -> None:
    assert run(relay, strict=strict) == 0


INTRUDER: dict[str, Callable[[], object]] = {
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "setuid": lambda: os.setuid(os.getuid()),
    "ptrace": lambda: ctypes.CDLL(None).ptrace(0, 0, 0, 0),
}


@pytest.mark.parametrize("call", INTRUDER.values(), ids=INTRUDER.keys())
def test_what_only_an_intruder_does_ends_the_worker(call: Callable[[], object]) -> None:
    assert run(call) == -signal.SIGSYS


REFUSED: dict[str, tuple[Callable[[], object], int]] = {
    "write": (lambda: os.open(os.devnull, os.O_WRONLY), errno.EACCES),
    "create": (lambda: os.open("new", os.O_CREAT | os.O_EXCL), errno.EACCES),
    "raw": (lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), errno.EAFNOSUPPORT),
    "mkdir": (lambda: os.mkdir("new"), errno.ENOSYS),
    "kill": (lambda: os.kill(os.getppid(), 0), errno.ENOSYS),
    "unlink": (lambda: os.unlink("old"), errno.ENOSYS),
}


@pytest.mark.parametrize(("call", "number"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_relay_does_not_need_fails(call: Callable[[], object], number: int) -> None:
    assert run(call) == number


def test_an_unknown_call_shows_in_the_tests() -> None:
    """In production it fails, and a newer libc goes on with an older call."""
    assert run(lambda: os.mkdir("new"), strict=True) == -signal.SIGSYS
    assert run(lambda: os.kill(os.getpid(), 0), strict=True) == -signal.SIGSYS


def test_the_tests_are_strict() -> None:
    """Or a call that is missing in the filter would not show."""
    code = "from v6fwd.daemon.seccomp import is_strict; print(is_strict())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def judge(steps: list[tuple[int, int, int, int]], nr: int, arch: int, *args: int) -> int:
    """Run a filter as the kernel would."""
    data = {0: nr, 4: arch, **{16 + 8 * at: value for at, value in enumerate(args)}}
    loaded = at = 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x20:
            loaded = data.get(operand, 0)
        elif code == 0x06:
            return operand
        else:
            holds = loaded == operand if code == 0x15 else bool(loaded & operand)
            at += if_true if holds else if_false


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("privileged", [False, True])
def test_every_call_is_judged_as_its_table_says(name: str, strict: bool, privileged: bool) -> None:
    """On all machines, this one or not."""
    machine = MACHINES[name]
    steps = program(machine, strict=strict, privileged=privileged)
    otherwise = KILL if strict else refuse(errno.ENOSYS)
    verdicts = {
        **dict.fromkeys(syscalls.PRIVILEGED.values(), ALLOW if privileged else otherwise),
        **dict.fromkeys(syscalls.BPF.values(), ALLOW if privileged else KILL),
        **dict.fromkeys(syscalls.ALLOWED.values(), ALLOW),
        **dict.fromkeys(syscalls.FATAL.values(), KILL),
        **dict.fromkeys(syscalls.PROBED.values(), refuse(errno.ENOSYS)),
    }
    for numbers, verdict in verdicts.items():
        if (number := numbers[machine.column]) >= 0:
            assert judge(steps, number, machine.audit) == verdict, numbers
            assert judge(steps, number, 1) == KILL  # of another architecture
    for number in (1 << 30, 999, 0x40000000):  # the last is x32's read
        assert judge(steps, number, machine.audit) == otherwise
    assert all(max(step[1], step[2]) < 256 for step in steps)


@pytest.mark.parametrize("name", MACHINES)
def test_arguments_that_count(name: str) -> None:
    machine = MACHINES[name]
    steps = program(machine, strict=False, privileged=False)

    def verdict(call: str, *args: int) -> int:
        return judge(steps, syscalls.CHECKED[call][machine.column], machine.audit, *args)

    assert verdict("clone", 0x3D0F00) == ALLOW  # as pthread_create(3) has it
    assert verdict("clone", signal.SIGCHLD) == KILL
    assert verdict("socket", socket.AF_INET6) == ALLOW
    assert verdict("socket", socket.AF_ALG) == refuse(errno.EAFNOSUPPORT)
    assert verdict("openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC) == ALLOW
    assert verdict("openat", 0, 0, os.O_RDWR) == refuse(errno.EACCES)
    assert verdict("ioctl", 0, 0x5421) == ALLOW
    assert verdict("ioctl", 0, 0x5412) == refuse(errno.ENOTTY)  # TIOCSTI


def test_no_number_stands_twice() -> None:
    tables = (syscalls.ALLOWED, syscalls.CHECKED, syscalls.PRIVILEGED, syscalls.FATAL)
    for column in (0, 1):
        numbers = [each[column] for table in tables for each in table.values()]
        known = [number for number in numbers if number >= 0]
        assert len(known) == len(set(known))
