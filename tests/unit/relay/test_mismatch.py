"""The rule: when a target and a mode disagree, and what is told of it."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from v6fwd.client_ip.first_answer import Answer
from v6fwd.log import Log
from v6fwd.model import ClientIP, Endpoint, Forward
from v6fwd.relay.counters import Counters
from v6fwd.relay.targets.mismatch import LOOK_INTERVAL, NEEDED, Looks, Mismatch, Mismatches

SERVED, ENDED, ERROR, SILENT, UNCLEAR = Answer
RIGHT_AFTER = "right after the PROXY header: does it expect one"
WANTS = "does it expect a PROXY header"
LISTEN, TARGET = Endpoint("::", 80), Endpoint("172.17.0.2", 80)


def noted(answers: Iterable[Answer]) -> tuple[Mismatch, list[int]]:
    """The state behind these flows, and at which of them, from 1, it was found."""
    mismatch = Mismatch()
    found = [at for at, each in enumerate(answers, 1) if mismatch.note({each.value: 1})]
    return mismatch, found


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([ENDED] * 19, []),
        ([ENDED] * 40, [20]),  # once
        ([ERROR] * 20, [20]),
        ([ENDED, ERROR] * 10, [20]),
        ([SILENT] * 15 + [UNCLEAR] * 5, [20]),
        ([SILENT] * 14 + [UNCLEAR] * 6, []),
        ([ENDED] * 15 + [UNCLEAR] * 5, [20]),
        ([ENDED] * 14 + [UNCLEAR] * 100, []),
        ([UNCLEAR] * 100 + [ENDED] * 15, [115]),
        ([UNCLEAR] * 10_000, []),
        (([ENDED] * 19 + [SERVED]) * 50, []),
        ([SERVED] + [ENDED] * 20, [21]),
        ([SERVED] * 50 + [ENDED] * 49, []),
        ([SERVED] * 50 + [ENDED] * 50, [100]),
        ([SERVED] * 9999 + [ENDED] * 199, []),
        ([SERVED] * 9999 + [ENDED] * 200, [9999 + 200]),
        ([ENDED] * 20 + [SERVED] + [ENDED] * 20, [20, 41]),
    ],
)
def test_the_rule(answers: list[Answer], found: list[int]) -> None:
    assert noted(answers)[1] == found


def test_one_that_is_served_ends_it() -> None:
    mismatch, _ = noted([ENDED] * 20)
    assert mismatch.found
    mismatch.note({"served": 1, "ended": 3})
    assert not mismatch.found
    assert mismatch.bad == 0


def test_what_is_not_known_is_not_counted() -> None:
    """A worker may say anything."""
    mismatch = Mismatch()
    assert not mismatch.note({"whatever": 10_000})


@pytest.mark.parametrize(
    ("mode", "answers", "text"),
    [
        (ClientIP.PROXY_V2, [ENDED] * 20, f"ended 20 of 20 connections {RIGHT_AFTER}"),
        (
            ClientIP.PROXY_V1,
            [ERROR] * 20,
            f"answered 20 of 20 connections with an error {RIGHT_AFTER}",
        ),
        (
            ClientIP.NONE,
            [ENDED] * 18 + [UNCLEAR] * 2,
            f"ended 18 of 20 connections without an answer: {WANTS}",
        ),
        (
            ClientIP.TRANSPARENT,
            [ERROR] * 20,
            f"answered 20 of 20 connections with an error at once: {WANTS}",
        ),
        (
            ClientIP.FORWARDED,
            [ERROR] * 20,
            "answered 20 of 20 connections with HTTP 400: does it take plain HTTP",
        ),
        (
            ClientIP.FORWARDED,
            [ENDED] * 20,
            f"ended 20 of 20 connections without an answer: {WANTS}",
        ),
        (
            ClientIP.PROXY_V2,
            [SILENT] * 11 + [ENDED] * 9,
            "did not answer 20 of 20 connections behind the PROXY header: does it expect one",
        ),
        (
            ClientIP.PROXY_V2,
            [SILENT] * 10 + [ERROR] * 10,
            f"answered 20 of 20 connections with an error {RIGHT_AFTER}",
        ),
        (ClientIP.NONE, [SILENT] * 20, f"did not answer 20 of 20 connections: {WANTS}"),
    ],
)
def test_the_line(mode: ClientIP, answers: list[Answer], text: str) -> None:
    assert noted(answers)[0].text(Forward(LISTEN, TARGET, mode)) == (
        f"172.17.0.2:80 {text}? v6fwd probe 172.17.0.2:80"
    )


def test_a_unix_socket_cannot_be_probed() -> None:
    target = Endpoint("", 0, "/run/web.sock")
    text = noted([ENDED] * 20)[0].text(Forward(LISTEN, target, ClientIP.PROXY_V2))
    assert text.endswith("does it expect one?")


class Site:
    """Mismatches of one forward, and what they log."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        self.forward: Forward | None = Forward(LISTEN, TARGET, ClientIP.PROXY_V2)
        self.mismatches = Mismatches(Log(fd=self._writer), lambda _: self.forward)

    def ended(self, count: int) -> None:
        self.mismatches.note("[::]:80", {"ended": count})

    def log(self) -> str:
        """All lines. Nothing is logged from here on."""
        os.close(self._writer)
        with open(self.reader) as lines:
            return lines.read()


@pytest.fixture
def site() -> Site:
    return Site()


def test_it_is_logged_once_and_stays(site: Site) -> None:
    assert site.forward is not None
    for _ in range(10):
        site.ended(5)
    assert "ended 50 of 50" in site.mismatches.text(site.forward)
    assert site.log().count("ended 20 of 20") == 1


def test_another_mode_begins_anew(site: Site) -> None:
    assert site.forward is not None
    site.ended(NEEDED)
    site.mismatches.forget("[::]:80")
    assert site.mismatches.text(site.forward) == ""
    site.ended(NEEDED - 1)
    assert site.log().count("\n") == 1


def test_flows_of_a_forward_that_is_closed(site: Site) -> None:
    site.forward = None
    site.ended(NEEDED)
    assert site.log() == ""


def test_which_flows_are_looked_at() -> None:
    """All, until one is served; then one now and then, and all again when that one fails."""
    counters, heard = Counters(), []
    looks = Looks(LISTEN, counters, lambda listen, answers: heard.append((listen, answers)))
    assert looks.look_from < 0
    looks.saw(UNCLEAR, 10.0)
    assert looks.look_from < 0
    looks.saw(SERVED, 10.0)
    assert looks.look_from == 10.0 + LOOK_INTERVAL
    looks.saw(UNCLEAR, 16.0)
    assert looks.look_from == 10.0 + LOOK_INTERVAL
    looks.saw(ENDED, 16.0)
    assert looks.look_from < 0
    assert counters.first_answers == {"unclear": 2, "served": 1, "ended": 1}
    assert heard[-1] == ("[::]:80", {"ended": 1})
    assert counters.activity() == 4  # so that it is reported
