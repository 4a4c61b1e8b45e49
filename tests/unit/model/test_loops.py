"""Forwards that lead back to themselves, as far as their text tells."""

from __future__ import annotations

import pytest

from v6fwd.model import Forward, pair_up
from v6fwd.model.loops import is_loopback, looping

HERE = bytes((192, 0, 2, 1))


def is_local(packed: bytes) -> bool:
    return is_loopback(packed) or packed == HERE


def forwards(*words: str) -> list[Forward]:
    pairs = [pair for word in words for pair in pair_up(*word.split(" -> "))]
    return [Forward(*pair) for pair in pairs]


@pytest.mark.parametrize(
    "word",
    [
        "[::]:80 -> 127.0.0.1:80",
        "[::]:80 -> 127.9.9.9:80",
        "[::]:80 -> [::1]:80",
        "[::]:80 -> [::ffff:127.0.0.1]:80",
        "[::]:80 -> 0.0.0.0:80",
        "[::]:80 -> [::]:80",
        "[::]:80 -> localhost:80",
        "[::]:80 -> app.localhost:80",
        "[::]:80 -> 192.0.2.1:80",
        "0.0.0.0:80 -> localhost:80",
        "0.0.0.0:80 -> 192.0.2.1:80",
        "203.0.113.9:80 -> 203.0.113.9:80",
        "[::ffff:192.0.2.9]:80 -> 192.0.2.9:80",
        "[::]:53/udp -> 127.0.0.1:53",
        "[::]:81-83 -> 127.0.0.1:81-83",
    ],
)
def test_itself(word: str) -> None:
    every = forwards(word)
    assert looping(every, is_local) == every


@pytest.mark.parametrize(
    "words",
    [
        ["[::]:80 -> 127.0.0.1:81"],
        ["[::]:80 -> 192.0.2.7:80"],
        ["[::]:80 -> web:80"],
        ["[::]:80 -> unix:/run/app.sock"],
        ["0.0.0.0:80 -> [::1]:80"],
        ["127.0.0.1:80 -> 127.0.0.2:80"],
        ["[::1]:80 -> 127.0.0.1:80"],
        ["[::]:80 -> 127.0.0.1:81", "[::]:81/udp -> 127.0.0.1:80"],
        ["[::]:80 -> 127.0.0.1:81", "[::]:81 -> 127.0.0.1:82", "[::]:82 -> 192.0.2.7:80"],
        ["[::]:80 -> 127.0.0.1:79", "[::]:81-83 -> 127.0.0.1:80-82"],
    ],
)
def test_a_chain_is_no_loop(words: list[str]) -> None:
    assert looping(forwards(*words), is_local) == []


def test_a_circle_and_who_leads_into_it() -> None:
    one, two, three, into = forwards(
        "[::]:80 -> [::1]:81",
        "[::1]:81 -> 192.0.2.1:82",
        "[::]:82 -> localhost:80",
        "90 -> [::1]:81",
    )
    assert looping([one, two, three, into], is_local) == [one, two, three]
    assert looping([one, two, into], is_local) == []
