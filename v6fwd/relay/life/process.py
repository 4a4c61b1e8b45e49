"""Ports, signals and the garbage collector of a process that relays."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Sequence

from v6fwd.model import Endpoint, Forward, Limits
from v6fwd.relay.relay import Relay

GC_THRESHOLD = 50_000
"""Objects made before the collector looks: flows leave no cycles, so it rarely finds any."""


def ignore_stray_signals() -> None:
    """Ignore what other daemons take as a command, and what would end us by default (signal(7))."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def stop_on_signals(
    add: Callable[[int, Callable[[float], None], float], object],
    stop: Callable[[float], None],
    limits: Limits,
) -> None:
    """SIGTERM drains, SIGINT too but not for long; a second signal of any kind ends it.

    SIGHUP (the terminal is gone) and SIGQUIT would end the process at once by default: streams
    would be cut with a clean end, and rules be left in a container. They are SIGTERM. nohup(1)
    is obeyed. `add` is a loop's add_signal_handler, `stop` gets the seconds for flows to finish.
    """
    ignore_stray_signals()
    add(signal.SIGINT, stop, limits.interrupt_timeout)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            add(number, stop, limits.drain_timeout)


def freeze_garbage() -> None:
    """Let the collector look seldom, and never at what the start has made.

    That is not searched for garbage before: 3 ms of a start for some 50 KB.
    """
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    gc.enable()


def open_all(
    relay: Relay, forwards: Sequence[Forward], listen: Callable[[Endpoint], socket.socket]
) -> None:
    """Listen for all forwards, or for none. Raises RelayError."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(listen(each.listen)) for each in forwards]
        relay.check_loops(zip(forwards, sockets, strict=True))
        opened.pop_all()
    for forward, sock in zip(forwards, sockets, strict=True):
        relay.begin(forward, sock)
