"""What the datagram helpers count and say."""

from __future__ import annotations

import pytest

from bench.helpers.datagrams import _last
from bench.helpers.sink import Count


@pytest.mark.parametrize(
    ("trains", "wanted"),
    [
        ([(0, 1, 2), (3,)], (4, 4, 0)),
        ([(0, 1), (4, 5)], (6, 4, 0)),
        ([(0,), (2,), (1,), (3,)], (4, 4, 1)),
        ([(2, 3), (0, 1)], (4, 4, 2)),
        ([(0, 2, 3)], (4, 3, 0)),
        ([(5,), (5,)], (6, 2, 1)),
    ],
    ids=["all", "a gap", "late", "a late train", "a gap in a train", "twice"],
)
def test_sink_counts(trains: list[tuple[int, ...]], wanted: tuple[int, int, int]) -> None:
    count = Count()
    for numbers in trains:
        count.take(numbers)
    assert (count.next, count.received, count.late) == wanted


def test_the_last_whole_record_counts() -> None:
    first, second = Count(64, 60, 1), Count(128, 120, 2)
    words = first.record() + second.record()
    assert _last(words) == (128, 120, 2)
    assert _last(words + b"half") == (128, 120, 2)
    assert _last(words[:-1]) == (64, 60, 1)
