"""System calls on bare descriptors that the socket module makes with more calls, or not at all.

`socket.socket(fileno=...)` asks the kernel for the socket's name before it is of any use, and
accept(2) in Python cannot pass SOCK_NONBLOCK. None of these calls blocks, so the GIL is kept.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from functools import partial

_libc = ctypes.PyDLL(None, use_errno=True)
_accept4, _shutdown, _getsockopt = _libc.accept4, _libc.shutdown, _libc.getsockopt
_send = _libc.send
_send.restype = ctypes.c_ssize_t
_ADDRESS_SIZE = 28
"""Bytes of struct sockaddr_in6, the longest address of a client."""
_MORE = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL | socket.MSG_MORE
_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC

_number, _size = ctypes.c_int(), ctypes.c_uint()
_number_at, _size_at = ctypes.byref(_number), ctypes.byref(_size)

last_errno = ctypes.get_errno
"""Why the last of these calls failed."""

Accept = Callable[[], int]
"""Gives the descriptor of a client, non-blocking; -1 where `last_errno` says why not."""


def accepting(fd: int) -> tuple[Accept, bytearray]:
    """accept4(2) for one listening socket, and where the client's struct sockaddr will be.

    The size is not set before each call: a listening socket has clients of one family only.
    """
    sockaddr = bytearray(_ADDRESS_SIZE)
    name = (ctypes.c_char * _ADDRESS_SIZE).from_buffer(sockaddr)
    size = ctypes.byref(ctypes.c_uint(_ADDRESS_SIZE))
    return partial(_accept4, fd, name, size, _FLAGS), sockaddr


def sending_more(buffer: memoryview) -> Callable[[int, int], int]:
    """Send as many bytes of this buffer to a socket: the last ones before its end.

    Gives how many it took; -1 where `last_errno` says why not. MSG_MORE holds them back until
    `end_writing` or close(2): bytes and FIN are one segment.
    """
    start = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    return lambda fd, size: int(_send(fd, start, ctypes.c_size_t(size), _MORE))


def end_writing(fd: int) -> None:
    """Pass an end of stream on: shutdown(2) of the writing half. Raises OSError."""
    if _shutdown(fd, socket.SHUT_WR):
        raise OSError(last_errno(), os.strerror(last_errno()))


def int_option(fd: int, level: int, option: int) -> int:
    """A socket option that is an int. Raises OSError."""
    _size.value = ctypes.sizeof(_number)
    if _getsockopt(fd, level, option, _number_at, _size_at):
        raise OSError(last_errno(), os.strerror(last_errno()))
    return _number.value
