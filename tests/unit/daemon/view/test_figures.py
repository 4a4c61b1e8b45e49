"""Rates from two statuses, rows, groups of clients, and the rings of samples and lines."""

from __future__ import annotations

import pytest

from tests.support.viewed import a_flow, a_forward, a_status
from v6fwd.daemon.view.clients import grouped, top
from v6fwd.daemon.view.figures import Rates, causes, rates
from v6fwd.daemon.view.history import EVERY, KEPT, History
from v6fwd.daemon.view.recent import KEPT as KEPT_LINES
from v6fwd.daemon.view.recent import LENGTH, Recent
from v6fwd.daemon.view.rows import HELD, Table, busiest, summed
from v6fwd.relay.ends import End


def test_rates_are_differences_per_second() -> None:
    before = a_forward(flows=10, bytes_up=100, bytes_down=1000, http_refused=1)
    now = a_forward(flows=14, bytes_up=300, bytes_down=5000, http_refused=3)
    assert rates(before, now, 2.0) == Rates(2.0, 100.0, 2000.0, 1.0)


def test_no_rate_without_a_status_before() -> None:
    assert rates(None, a_forward(flows=10), 1.0) == Rates()
    assert rates(a_forward(), a_forward(flows=10), 0.0) == Rates()


def test_a_number_that_falls_has_no_rate() -> None:
    """A worker died, and what it had not reported is gone."""
    before = a_forward(flows=10, bytes_up=100)
    assert rates(before, a_forward(flows=9, bytes_up=200), 1.0) == Rates(0.0, 100.0, 0.0, 0.0)


def test_errors_are_counted_once() -> None:
    ends = {End.CLOSED.text: 7, End.REFUSED.text: 2, End.CUT.text: 1, "of another version": 1}
    forward = a_forward(dial_failures={"refused": 2}, ends=ends, udp=dict.fromkeys(["full"], 4))
    assert causes(forward).total() == 2 + 1 + 1 + 4


def test_rows_of_forwards_and_held_ports() -> None:
    published = [
        {"listen": "[::]:80", "target": "x", "container": "web", "source": "label"},
        {"listen": "[::]:81", "target": "x", "container": "db", "source": "error in a label"},
    ]
    held = [{"listen": "[::]:81", "target": "172.17.0.3:80", "why": "a label is wrong"}]
    forwards = a_forward(flows=3, ended=1), a_forward("[::]:82", mismatch="expects proxy-v2")
    table = Table()
    status = a_status(*forwards, held=held, published=published)
    served, mismatched, refused = table.rows(status, 1.0)
    assert (served.container, served.why, served.live) == ("web", "label", 2)
    assert not served.is_trouble
    assert (mismatched.note, mismatched.is_trouble) == ("expects proxy-v2", True)
    assert (refused.state, refused.container, refused.note) == (HELD, "db", "a label is wrong")


def test_a_table_remembers_the_status_before() -> None:
    table = Table()
    table.rows(a_status(a_forward(flows=1)), 10.0)
    (row,) = table.rows(a_status(a_forward(flows=9)), 14.0)
    assert row.rates == summed([row]) == Rates(flows=2.0)


def test_a_draining_forward_has_neither_target_nor_mode() -> None:
    draining = a_forward(state="draining", flows=1)
    del draining["target"], draining["client_ip"], draining["since"], draining["mismatch"]
    (row,) = Table().rows(a_status(draining), 1.0)
    assert (row.state, row.target, row.mode) == ("draining", "", "")


def test_trouble_and_work_have_room_first() -> None:
    table = Table()
    names = [f"[::]:{number}" for number in range(100, 600)]
    table.rows(a_status(*map(a_forward, names)), 1.0)
    forwards = [a_forward(name) for name in names]
    forwards[300] |= {"mismatch": "of another mode"}
    forwards[400] |= {"bytes_down": 10}
    shown = busiest(table.rows(a_status(*forwards), 2.0), 2)
    assert [row.listen for row in shown] == [names[300], names[400]]


def test_clients_by_network() -> None:
    flows = [a_flow("2001:db8::1", 1, 2), a_flow("2001:db8::2", 10, 20), a_flow("192.0.2.1", 5, 5)]
    shown, number = top(flows, "net", 1)
    assert number == 2
    assert [(group["client"], group["flows"]) for group in shown] == [("2001:db8::/64", 2)]
    assert (shown[0]["bytes_up"], shown[0]["bytes_down"]) == (11, 22)


def test_whoever_has_gone_is_a_client_without_address() -> None:
    assert [group["client"] for group in grouped([a_flow("")], "net")] == [""]


def test_a_sample_is_a_mean() -> None:
    history = History(0.0)
    assert not history.note(Rates(flows=10.0), 1, EVERY - 1)
    assert history.note(Rates(flows=5.0), 2, EVERY)
    (sample,) = history.samples
    assert sample.rates.flows == pytest.approx((10 * (EVERY - 1) + 5) / EVERY)
    assert sample.live == 2


def test_samples_are_of_ten_minutes() -> None:
    history = History(0.0)
    for number in range(1, 2 * KEPT):
        assert history.note(Rates(flows=number), number, number * EVERY)
    assert len(history.samples) == KEPT
    assert KEPT * EVERY == 600
    assert history.samples[-1].live == 2 * KEPT - 1


def test_lines_are_bounded_and_escaped() -> None:
    recent = Recent(lambda: 5.0)
    for number in range(2 * KEPT_LINES):
        recent.note("info", "event", f"{number}\x1b[2J" + "x" * 10_000)
    assert (len(recent.lines), recent.noted) == (KEPT_LINES, 2 * KEPT_LINES)
    last = recent.lines[-1]
    assert last.text.startswith(f"{2 * KEPT_LINES - 1}\\x1b[2Jx")
    assert (len(last.text), last.at) == (LENGTH, 5.0)
