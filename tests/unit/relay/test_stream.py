"""What a stream's flow gives back at its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from v6fwd.relay.tcp.flow import TcpFlow


@pytest.mark.parametrize(("fd", "closed"), [(0, [0]), (7, [7]), (-1, [])])
def test_the_target_is_closed_whatever_its_number(fd: int, closed: list[int]) -> None:
    """Who is started without a standard input may get 0; -1: HTTP has left its target before."""
    flow: Any = TcpFlow.__new__(TcpFlow)
    was_closed: list[int] = []
    reactor = SimpleNamespace(close_fd=was_closed.append)
    flow._forward = cast("Any", SimpleNamespace(resources=SimpleNamespace(reactor=reactor)))
    flow.client = SimpleNamespace(fd=5, pipe=None, other=None)
    flow.target = SimpleNamespace(fd=fd, pipe=None, other=None)
    flow._close_target()
    assert was_closed == closed
    assert not flow._has_sides()
