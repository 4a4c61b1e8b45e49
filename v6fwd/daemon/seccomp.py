"""The seccomp filter of a worker: the system calls of a relay, and no others.

What is not allowed fails with ENOSYS, so that a newer libc falls back to what it did before; what
only an intruder would call ends the process (SIGSYS). With V6FWD_SECCOMP=strict, as in the tests,
everything that is not allowed ends it: a call that is missing in `syscalls` shows.

The kernel runs the filter for each call once and then knows the numbers that it always allows
(since Linux 5.11), so only the calls whose arguments are looked at cost anything. A program of BPF
in classic form, seccomp(2), is short enough to be written here; libseccomp's bindings would be the
only compiled dependency that is not on PyPI as a wheel.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from v6fwd.daemon.syscalls import ALLOWED, BPF, CHECKED, FATAL, PRIVILEGED, PROBED, RING

ENVIRONMENT = "V6FWD_SECCOMP"


class Machine(NamedTuple):
    """A processor architecture."""

    audit: int
    """AUDIT_ARCH_..., linux/audit.h."""
    seccomp: int
    """The number of seccomp(2)."""
    column: int
    """Of the tables in `syscalls`."""


MACHINES = {
    "x86_64": Machine(0xC000003E, 317, 0),
    "aarch64": Machine(0xC00000B7, 277, 1),
}

# linux/bpf_common.h, linux/filter.h
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
# linux/seccomp.h
_SET_MODE_FILTER = 1
_SPEC_ALLOW = 4  # older kernels than 5.16 would switch speculation off, for 10 % and more
ALLOW, KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]. Little endian.
_NR, _ARCH, _ARGUMENTS = 0, 4, 16

_STEP = struct.Struct("=HBBI")
"""struct sock_filter."""
_CLONE_THREAD = 0x10000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK)
_IOCTLS = (
    0x5401,  # TCGETS: isatty(3)
    0x5411,  # SIOCOUTQ
    0x541B,  # FIONREAD
    0x5421,  # FIONBIO
    0x5451,  # FIOCLEX
    0x8905,  # SIOCATMARK
    0x8910,  # SIOCGIFNAME
    0x8933,  # SIOCGIFINDEX
)

Step = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, operand."""


def refuse(number: int) -> int:
    """Return the action that lets a call fail with an errno."""
    return _ERRNO | number


def program(machine: Machine, *, strict: bool, privileged: bool, ring: bool = False) -> list[Step]:
    """Return the filter. `privileged`: with what a helper calls in addition; `ring`: with RING."""
    column = machine.column
    otherwise = KILL if strict else refuse(errno.ENOSYS)
    allowed = ALLOWED | (PRIVILEGED | BPF if privileged else {}) | (RING if ring else {})
    fatal = FATAL if privileged else FATAL | BPF
    steps: list[Step] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NR),
    ]
    steps += _each(allowed.values(), column, [(_RETURN, 0, 0, ALLOW)])
    steps += _each(fatal.values(), column, [(_RETURN, 0, 0, KILL)])
    steps += _each(PROBED.values(), column, [(_RETURN, 0, 0, refuse(errno.ENOSYS))])
    for name, numbers in CHECKED.items():
        steps += _each([numbers], column, _checks(name, privileged=privileged))
    return [*steps, (_RETURN, 0, 0, otherwise)]


def _each(calls: Iterable[Sequence[int]], column: int, then: Sequence[Step]) -> list[Step]:
    """Do `then`, which ends in a return, for any of these calls."""
    numbers = [numbers[column] for numbers in calls if numbers[column] >= 0]
    steps: list[Step] = []
    for left, number in zip(range(len(numbers) - 1, -1, -1), numbers, strict=True):
        last = not left  # the others jump to `then`; the last one that does not match, behind it
        steps.append((_EQUAL, left, len(then) if last else 0, number))
    return [*steps, *then] if steps else []


def _checks(name: str, *, privileged: bool) -> list[Step]:
    """Look at an argument's lower half: flags and numbers of int."""
    if name == "socket":
        return _one_of(0, _FAMILIES, refuse(errno.EAFNOSUPPORT))
    if name == "ioctl":
        return _one_of(1, _IOCTLS, refuse(errno.ENOTTY))
    if name == "clone":
        return _bits(0, _CLONE_THREAD, ALLOW, KILL)
    if privileged:
        return [(_RETURN, 0, 0, ALLOW)]
    return _bits(2 if name == "openat" else 1, _WRITES, refuse(errno.EACCES), ALLOW)


def _one_of(argument: int, values: Sequence[int], otherwise: int) -> list[Step]:
    count = len(values)
    tests = [(_EQUAL, count - at, 0, value) for at, value in enumerate(values)]
    returns = [(_RETURN, 0, 0, otherwise), (_RETURN, 0, 0, ALLOW)]
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), *tests, *returns]


def _bits(argument: int, bits: int, action: int, otherwise: int) -> list[Step]:
    """Do `action` if any of the bits is set."""
    return [
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        (_ANY_BIT, 0, 1, bits),
        (_RETURN, 0, 0, action),
        (_RETURN, 0, 0, otherwise),
    ]


def is_strict() -> bool:
    """Whether the environment wants every call that is not allowed to end the process."""
    return os.environ.get(ENVIRONMENT) == "strict"


@functools.cache
def _code(machine: Machine, *, strict: bool, privileged: bool, ring: bool) -> bytes:
    steps = program(machine, strict=strict, privileged=privileged, ring=ring)
    return b"".join(_STEP.pack(*step) for step in steps)


def filter_ahead() -> None:
    """Make the filters that a worker may want, before it is forked; see `fork_worker`."""
    machine = MACHINES.get(os.uname().machine)
    if machine is not None:
        for ring in (False, True):
            _code(machine, strict=is_strict(), privileged=False, ring=ring)


def confine(*, privileged: bool = False, strict: bool = False, ring: bool = False) -> str:
    """Filter the system calls of this process for good; return why not, "" if it is done.

    no_new_privs must be set. A kernel or a sandbox around us may not have seccomp(2).
    """
    machine = MACHINES.get(os.uname().machine)
    if machine is None:
        return f"no filter of system calls for {os.uname().machine}"
    code = _code(machine, strict=strict, privileged=privileged, ring=ring)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog
    header = struct.pack("HxxxxxxP", len(code) // _STEP.size, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    call = (ctypes.c_long(machine.seccomp), ctypes.c_uint(_SET_MODE_FILTER))
    if libc.syscall(*call, ctypes.c_uint(_SPEC_ALLOW), ctypes.c_char_p(header)):
        return f"no filter of system calls: {os.strerror(ctypes.get_errno()).lower()}"
    return ""
