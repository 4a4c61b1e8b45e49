"""Gives up root: switches to another user and drops capabilities.

Workers, which talk to the network, run without root and without capabilities, whoever started the
daemon. What mode `transparent` needs, their helpers have. The supervisor keeps what helpers need,
and what a reload needs to open a port below 1024; it stays root if no `user` is configured.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from v6fwd.errors import RelayError, reason
from v6fwd.model import NO_NETNS, ClientIP, Forward, is_ip

NET_BIND_SERVICE = 10
"""capabilities(7): bind ports below 1024."""
DAC_OVERRIDE, NET_ADMIN, SYS_PTRACE, SYS_ADMIN = 1, 12, 19, 21
"""For mode `transparent`: share leases and stores with root's processes, and look into Docker's
folders; rules, routes and clients' addresses; find a namespace by a process; enter one."""
TRANSPARENT = frozenset({DAC_OVERRIDE, NET_ADMIN, SYS_PTRACE, SYS_ADMIN})
NOBODY = "nobody"
"""The user of workers if root starts the daemon and no `user` is configured."""
_OVERFLOW_ID = 65534
"""Its number where no such user is known: the kernel's own nobody, proc(5)."""

_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 4, 8, 38  # linux/prctl.h
_VERSION_3 = 0x20080522  # linux/capability.h

_libc = ctypes.CDLL(None, use_errno=True)


def become(user: str, keep: Iterable[int] = ()) -> None:
    """Be `user`, with its groups and the capabilities `keep`, for good. Raises RelayError.

    Only root can. Whoever is that user already keeps what it has of `keep`.
    """
    entry = pwd.getpwnam(user)
    try:
        if os.geteuid() != entry.pw_uid:
            groups = os.getgrouplist(user, entry.pw_gid)
            _switch(entry.pw_uid, entry.pw_gid, groups)
        restrict(keep)
    except OSError as error:
        raise RelayError(f"cannot become user {user}: {reason(error)}") from error


@functools.cache
def find_nobody() -> tuple[int, int]:
    """The ids of that user and of its group; to be called before the fork, see `fork_worker`."""
    try:
        entry = pwd.getpwnam(NOBODY)
    except KeyError:
        return _OVERFLOW_ID, _OVERFLOW_ID
    return entry.pw_uid, entry.pw_gid


def become_nobody() -> str:
    """Be no user that matters, in no group, without capabilities; return what is missing of that.

    Who is not root stays who it is. Raises OSError if capabilities cannot be dropped.
    """
    missing = ""
    if not os.geteuid():
        try:
            _switch(*find_nobody(), [])
        except OSError as error:  # a root without CAP_SETUID, which is not worth much
            missing = f"cannot become user {NOBODY}: {reason(error)}"
    restrict()
    return missing


def _switch(uid: int, gid: int, groups: list[int]) -> None:
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _prctl(_PR_SET_KEEPCAPS, 0)


def restrict(keep: Iterable[int] = ()) -> None:
    """Drop every capability but these, for good, and whatever executes. Raises OSError."""
    keep_only(keep)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    hide_memory()


def hide_memory() -> None:
    """Keep processes of the same user out: no ptrace(2), no /proc/PID/mem, no core file."""
    _prctl(_PR_SET_DUMPABLE, 0)


def needed_by(forwards: Iterable[Forward]) -> set[int]:
    """Return the capabilities that serving these takes."""
    some = [each.transparent for each in forwards if each.client_ip is ClientIP.TRANSPARENT]
    needed = {DAC_OVERRIDE, NET_ADMIN} if some else set()
    names = {each.netns for each in some} - {NO_NETNS}
    if names:
        needed.add(SYS_ADMIN)
    if any(not name or name.isdecimal() or is_ip(name) for name in names):
        needed.add(SYS_PTRACE)
    return needed


def keep_only(keep: Iterable[int] = ()) -> None:
    """Drop every capability but these. Raises OSError."""
    kept = permitted() & sum(1 << number for number in keep)
    _capset(kept)


def permitted() -> int:
    """Return the permitted capabilities of this process, a bit each."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    return 0


def _capset(kept: int) -> None:
    """capset(2) for this process: effective and permitted alike, nothing inheritable."""
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if _libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
