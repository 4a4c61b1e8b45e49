"""Which capabilities serving some forwards takes."""

from __future__ import annotations

import pytest

from v6fwd.daemon.privileges import DAC_OVERRIDE, NET_ADMIN, SYS_ADMIN, SYS_PTRACE, needed_by
from v6fwd.model import ClientIP, Endpoint, Forward, Transparent


def forward(mode: ClientIP, netns: str = "") -> Forward:
    return Forward(
        Endpoint("::", 80), Endpoint("172.17.0.2", 80), mode, transparent=Transparent(netns)
    )


@pytest.mark.parametrize("mode", [mode for mode in ClientIP if mode is not ClientIP.TRANSPARENT])
def test_other_modes_need_nothing(mode: ClientIP) -> None:
    assert needed_by([forward(mode)]) == set()


@pytest.mark.parametrize(
    ("netns", "more"),
    [
        ("none", set()),
        ("", {SYS_ADMIN, SYS_PTRACE}),
        ("172.17.0.2", {SYS_ADMIN, SYS_PTRACE}),
        ("name", {SYS_ADMIN}),
        ("/run/docker/netns/17", {SYS_ADMIN}),
        ("17", {SYS_ADMIN, SYS_PTRACE}),
    ],
)
def test_transparent_needs_more_the_nearer_it_gets(netns: str, more: set[int]) -> None:
    some = [forward(ClientIP.NONE), forward(ClientIP.TRANSPARENT, netns)]
    assert needed_by(some) == {DAC_OVERRIDE, NET_ADMIN} | more
