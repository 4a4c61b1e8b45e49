"""`python -m bench.netns_cycles NAME COUNT`: enter a namespace and leave it, that often.

Each time all kinds of rules are put in place, then everything is undone. Prints how many
descriptors more than at first there are.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable

from v6fwd.log import Log
from v6fwd.model import Address, Protocol
from v6fwd.netns.policy import add_placeholder
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.transparent.namespaces import Namespaces

CLIENTS = (Address(bytes([203, 0, 113, 7]), 1), Address(bytes.fromhex("20010db8" + "0" * 24), 1))


def cycle(name: str, then: Callable[[], object] | None = None) -> None:
    """All that a forward does in a namespace, something that may happen then, and its end."""
    loop = asyncio.new_event_loop()
    reactor = Reactor(loop)
    namespaces = Namespaces(reactor, Log())
    namespaces.join(name)
    policy = namespaces.policy(name)
    for family in (socket.AF_INET, socket.AF_INET6):
        policy.accept_loopback(family, 80)
        policy.accept_datagrams(family, 80)
        policy.accept_marked(family)
    for protocol in Protocol:
        policy.accept_pseudo(protocol, 80)
    add_placeholder(name).close()
    for client in CLIENTS:
        policy.udp_clients.add(client)
    if then is not None:
        then()
    namespaces.leave(name)
    namespaces.close()
    reactor.close()
    loop.close()


def main(name: str, count: int) -> None:
    """Run the cycles."""
    cycle(name)  # the libraries open what they need
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(count):
        cycle(name)
    print(f"{count} times, {len(os.listdir('/proc/self/fd')) - before} descriptors left")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
