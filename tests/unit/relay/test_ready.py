"""What is logged when all listeners accept."""

from __future__ import annotations

import pytest

from tests.support.logged import Logged
from v6fwd.model import ClientIP, Endpoint, Forward
from v6fwd.relay.ready import SHOWN, ready_text, tell_ready


def forwards(count: int) -> list[Forward]:
    target = Endpoint("172.17.0.2", 80)
    return [Forward(Endpoint("::", 8000 + at), target, ClientIP.PROXY_V2) for at in range(count)]


@pytest.mark.parametrize(("count", "more"), [(0, 0), (1, 0), (SHOWN, 0), (SHOWN + 2, 2)])
def test_a_line_for_each_up_to_ten(logged: Logged, count: int, more: int) -> None:
    tell_ready(logged.log, ready_text(count), forwards(count))
    first, *lines = logged.lines()
    assert first == ("ready", f"ready: {count} forwards")
    assert lines[0:1] == [("forward", "[::]:8000 -> 172.17.0.2:80, client-ip proxy-v2")][:count]
    assert len(lines) == min(count, SHOWN) + bool(more)
    assert not more or lines[-1] == ("forward", f"and {more} more")
