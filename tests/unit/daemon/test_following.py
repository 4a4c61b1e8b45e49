"""What a successor has its predecessor do, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from v6fwd.daemon import following
from v6fwd.daemon.following import Following, is_of_successor, joined, numbered

BAN = {"do": "ban", "networks": ["2001:db8::1"]}


class Pair:
    """A successor's side of the connection, and a predecessor that is played."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.following = Following(ours)
        self.theirs.setblocking(False)
        self._rest = b""

    async def hear(self) -> Any:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._rest:
            self._rest += await loop.sock_recv(self.theirs, 100_000)
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def say(self, answer: dict[str, Any]) -> None:
        self.theirs.send(json.dumps(answer).encode() + b"\n")


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.following.close()
    pair.theirs.close()


async def test_requests_go_as_they_are_one_after_the_other(pair: Pair) -> None:
    asked = [asyncio.ensure_future(pair.following.change(BAN)) for _ in range(2)]
    for number in (1, 2):
        assert await pair.hear() == BAN | {"following": number}
        pair.say({"ended": number, "following": number})
    answers = await asyncio.gather(*asked)
    assert [answer["ended"] for answer in answers] == [1, 2]


async def test_an_answer_that_comes_late_is_none_of_the_next(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(following, "PATIENCE", 0)
        assert await pair.following.change(BAN) == {"missing": [os.getpid()]}
    asked = asyncio.ensure_future(pair.following.change(BAN))
    heard = await pair.hear()
    pair.say({"ended": 7, "following": 1})
    number = heard["following"]
    pair.say({"ended": 8, "following": 2})
    assert (await asked)["ended"] == 8
    assert number in (1, 2)  # the first request may have gone, or not


async def test_one_of_an_older_release_does_nothing(pair: Pair) -> None:
    asked = asyncio.ensure_future(pair.following.change(BAN))
    await pair.hear()
    pair.say({"error": ["this daemon is stopping"], "done": True})
    assert await asked == {"missing": [os.getpid()]}


@pytest.mark.parametrize("last", [b"", b"{\n", b"[]\n"])
async def test_one_that_has_gone_is_forgotten(pair: Pair, last: bytes) -> None:
    asked = asyncio.ensure_future(pair.following.change(BAN))
    await pair.hear()
    pair.theirs.send(last) if last else None
    pair.theirs.close()
    assert await asked == {}
    assert await pair.following.change(BAN) == {}


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        ({"ended": 1, "missing": []}, {"ended": 2, "missing": [7]}, {"ended": 3, "missing": [7]}),
        ({"ended": 1, "missing": [5]}, {}, {"ended": 1, "missing": [5]}),
        ({"missing": []}, {"missing": [7], "bans": [1]}, {"missing": [7]}),
        (
            {"ended": {"a": 1}, "missing": []},
            {"ended": {"a": 2, "b": 3}, "missing": []},
            {"ended": {"a": 3, "b": 3}, "missing": []},
        ),
        ({"ended": 1, "missing": []}, {"error": ["x"]}, {"ended": 1, "missing": []}),
        ({"error": ["x"]}, {"ended": 2, "missing": []}, {"error": ["x"]}),
    ],
)
def test_both_answers_are_one(
    own: dict[str, Any], other: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert joined(own, other) == expected


def test_only_a_successor_numbers_its_requests() -> None:
    assert not is_of_successor(BAN)
    assert numbered({"done": True}, BAN) == {"done": True}
    asked = BAN | {"following": 3}
    assert is_of_successor(asked)
    assert numbered({"done": True}, asked) == {"done": True, "following": 3}
