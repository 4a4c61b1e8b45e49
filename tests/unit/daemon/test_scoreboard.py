"""What workers know of each other."""

from __future__ import annotations

from v6fwd.daemon.scoreboard import LEAD, Scoreboard


def test_who_has_far_more_waits() -> None:
    scoreboard = Scoreboard(3)
    one, two, three = (scoreboard.enter(slot) for slot in range(3))
    assert not one.is_ahead(LEAD)
    assert one.is_ahead(LEAD + 1)
    assert not two.is_ahead(LEAD)
    assert not three.is_ahead(1)


def test_an_eighth_more_is_not_far_more() -> None:
    scoreboard = Scoreboard(2)
    one, two = scoreboard.enter(0), scoreboard.enter(1)
    two.is_ahead(800)
    assert not one.is_ahead(900 + LEAD)
    assert one.is_ahead(901 + LEAD)


def test_nobody_waits_for_the_absent() -> None:
    scoreboard = Scoreboard(2)
    one = scoreboard.enter(0)
    assert not one.is_ahead(1000)
    scoreboard.enter(1)
    assert one.is_ahead(1000)
    scoreboard.leave(1)
    assert not one.is_ahead(1000)


def test_nobody_waits_for_who_is_full() -> None:
    """A worker with few descriptors is full with few flows."""
    scoreboard = Scoreboard(2)
    one, two = scoreboard.enter(0), scoreboard.enter(1)
    two.is_ahead(5)
    two.all_full(True)
    assert not one.is_ahead(1000)


def test_all_are_full_when_the_last_one_is() -> None:
    scoreboard = Scoreboard(3)
    one, two = scoreboard.enter(0), scoreboard.enter(1)
    assert not one.all_full(True)
    assert two.all_full(True)
    assert not one.all_full(False)
    three = scoreboard.enter(2)
    assert not one.all_full(True)
    assert three.all_full(True)


def test_a_new_worker_begins_anew() -> None:
    scoreboard = Scoreboard(2)
    one, two = scoreboard.enter(0), scoreboard.enter(1)
    two.all_full(True)
    scoreboard.enter(1)
    assert not one.all_full(True)
