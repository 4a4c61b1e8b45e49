"""The head of a request that comes in many parts costs no more than it must."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.http_reading import feed, maker
from tests.unit.client_ip.http_samples import get
from v6fwd.client_ip.http import request_head
from v6fwd.client_ip.http.request_line import check_line


def test_its_line_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is read again with each part; the line stays as it is."""
    judged: list[bytes] = []

    def check(line: Any, data: bytes, **more: Any) -> None:
        judged.append(data)
        check_line(line, data, **more)

    monkeypatch.setattr(request_head, "check_line", check)
    one = get()
    parts = [bytes([byte]) for byte in 2 * one]
    assert len(feed(maker(), parts).begun) == 2
    assert judged == 2 * [one.partition(b"\r\n")[0]]
