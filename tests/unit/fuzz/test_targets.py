"""What fuzzing has found is tried again, and some new bytes with it; see tests/fuzz."""

from __future__ import annotations

import os
import random
import time
from ipaddress import ip_address
from typing import Any

import pytest

from tests.fuzz.corpus import WORDS, kept, mutated, seeds
from tests.fuzz.machine import ASKED
from tests.fuzz.targets import TARGETS

SECONDS = float(os.environ.get("FUZZ_SECONDS", "2.5"))
"""For new bytes, each target: half a minute in all."""

each = pytest.mark.parametrize("target", TARGETS)


@each
def test_samples(target: str) -> None:
    assert len(kept(target)) >= 20
    for sample in seeds(target):
        TARGETS[target](sample)


@each
def test_new_bytes(target: str) -> None:
    """A failure shows the bytes: as a line in tests/fuzz/corpus they stay a test."""
    chance, samples = random.Random(), seeds(target)
    until = time.monotonic() + SECONDS
    tried = 0
    while not tried or time.monotonic() < until:
        data = mutated(samples, WORDS[target], chance)
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"{target} fails with {data!r}") from error
        tried += 1


def test_netlink_messages_that_are_whole_are_understood() -> None:
    """Two protocols have answers of one number, with fixed parts of different lengths."""
    first = {sample[0]: sample[1:] for sample in reversed(kept("netlink"))}
    nets = asked(0, first[0])
    assert [(str(ip_address(net.packed)), net.length) for net in nets] == [
        ("172.17.0.1", 16),
        ("::", 64),
    ]
    assert asked(1, first[1]) is True
    with pytest.raises(BlockingIOError):  # IPv4's answer was whole, IPv6's does not come
        asked(4, first[4])
    with pytest.raises(OSError, match="Bad message"):
        asked(4, first[4][:40])
    assert len(asked(6, first[6])) == 1
    assert asked(7, first[7]) == 3


def asked(which: int, data: bytes) -> Any:
    """What one of the questions has for an answer."""
    return ASKED[which](data)
