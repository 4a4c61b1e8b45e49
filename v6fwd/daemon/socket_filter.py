"""A filter for sockets that a helper makes ahead: whom they hear, whatever a worker does.

A socket hears its target's address and port only: a worker that connects it elsewhere sends SYNs,
and the kernel drops every answer, so that no connection is ever made. A worker binds a socket in a
container's namespace to a client's address: such a one hears its target only as somebody whom that
may see. The filter is locked (SO_LOCK_FILTER): who has the socket cannot take it off. One program
in eBPF serves all sockets to a destination; to attach a classic one takes 13 us for each.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from collections.abc import Iterable

from v6fwd.client_ip.destination import Destination
from v6fwd.client_ip.presentable import NOT_PRESENTABLE
from v6fwd.client_ip.pseudo_ipv4 import PSEUDO_NET
from v6fwd.model import IPNetwork

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _SOCKET_FILTER = 5, 1
_SO_ATTACH_BPF, _SO_LOCK_FILTER = 50, 44

# linux/bpf.h, instructions: code, destination and source register, offset, immediate
_LOAD = {1: 0x30, 2: 0x28, 4: 0x20}  # BPF_LD | BPF_ABS: network byte order into r0
_IF_NOT = 0x56  # BPF_JMP32 | BPF_JNE | BPF_K
_JUMP, _AND = 0x05, 0x54
_SET, _MOVE, _EXIT = 0xB4, 0xBF, 0x95
_NETWORK_HEADER = -0x100000  # SKF_NET_OFF
_ADDRESSES = {4: (12, 16), 16: (8, 24)}
"""Where source and destination are in a header, by the length of an address."""
_DROP, _PASS = 0, -1


def guarded(sock: socket.SocketType, program: int) -> None:
    """Attach a program for good. Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    sock.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)


def all_guarded(sockets: list[socket.SocketType], program: int) -> list[socket.SocketType]:
    """Do so with all; return them. Raises OSError, and closes them then."""
    try:
        for sock in sockets:
            guarded(sock, program)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def load(code: bytes) -> int:
    """Load a program; return its descriptor. Raises OSError, also on machines not known here."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError("bpf(2) has a number that is not known here")
    buffer, license_ = ctypes.create_string_buffer(code, len(code)), ctypes.c_char_p(b"Apache-2.0")
    where = ctypes.cast(license_, ctypes.c_void_p).value
    parts = _SOCKET_FILTER, len(code) // 8, ctypes.addressof(buffer), where
    attributes = struct.pack("=IIQQ", *parts).ljust(48, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, _PROG_LOAD, attributes, len(attributes))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(fd)


def program(destination: Destination, port: int, own: Iterable[IPNetwork]) -> bytes:
    """Return the filter for TCP connections to a destination; `own` are the target's networks."""
    size = len(destination.address)
    _, at_destination = _ADDRESSES[size]
    checks = _from(destination.address, port)
    if destination.is_pseudo:
        checks.append((_NETWORK_HEADER + at_destination, 1, 0xF0, PSEUDO_NET[0]))
        nets: list[IPNetwork] = []
    else:
        nets = [net for group in NOT_PRESENTABLE.values() for net in group] + list(own)
    steps = _needs(checks)
    for net in nets:
        if net.version == (4 if size == 4 else 6):
            steps += _refuse(net, _NETWORK_HEADER + at_destination)
    return b"".join([*steps, *_end(_PASS)])


def task_program(task: bytes, port: int) -> bytes:
    """Return the filter for TCP connections to a task of Swarm.

    Such a socket has an address of its namespace: a worker may not bind a foreign one.
    """
    return b"".join([*_needs(_from(task, port)), *_end(_PASS)])


_Check = tuple[int, int, int, int]
"""Offset, bytes, mask, value."""


def _from(address: bytes, port: int) -> list[_Check]:
    """Checks of a packet's source: the port is at the start of the TCP header."""
    at_source, _ = _ADDRESSES[len(address)]
    whole = b"\xff" * len(address)
    return [(0, 2, 0xFFFF, port), *_words(_NETWORK_HEADER + at_source, address, whole)]


def _needs(checks: Iterable[_Check]) -> list[bytes]:
    """Begin a program: drop what fails one of the checks."""
    steps = [_step(_MOVE, 0x16)]
    for check in checks:
        steps += [*_load(check), _if_not(check, 1), _step(_JUMP, 0, 2), *_end(_DROP)]
    return steps


def _words(offset: int, value: bytes, mask: bytes) -> list[_Check]:
    """Checks of an address in words; those of which nothing counts are left out."""
    return [
        (offset + at, 4, word, int.from_bytes(value[at : at + 4], "big") & word)
        for at in range(0, len(value), 4)
        if (word := int.from_bytes(mask[at : at + 4], "big"))
    ]


def _refuse(net: IPNetwork, offset: int) -> list[bytes]:
    """Drop what is in a network."""
    checks = _words(offset, net.network_address.packed, net.netmask.packed)
    steps = _end(_DROP)
    for check in reversed(checks):
        steps = [*_load(check), _if_not(check, len(steps)), *steps]
    return steps


def _load(check: _Check) -> list[bytes]:
    offset, size, mask, _ = check
    return [_step(_LOAD[size], 0, 0, offset), _step(_AND, 0, 0, mask)]


def _if_not(check: _Check, skip: int) -> bytes:
    return _step(_IF_NOT, 0, skip, check[3])


def _end(verdict: int) -> list[bytes]:
    return [_step(_SET, 0, 0, verdict), _step(_EXIT)]


def _step(code: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhI", code, registers, offset, immediate & 0xFFFFFFFF)
