"""What `status` and `flows` print."""

from __future__ import annotations

from typing import Any

import pytest

from v6fwd.cli import flows, status
from v6fwd.cli.tables import duration, size, table
from v6fwd.daemon.view.clients import grouped
from v6fwd.relay.counters import Counters, snapshot_of
from v6fwd.relay.udp.resources import UdpCounters


def test_columns_are_aligned() -> None:
    assert table(("NAME", "N"), [("a", "1"), ("bbbbb", "100")], right="N") == (
        "NAME     N\na        1\nbbbbb  100"
    )


def test_what_a_terminal_obeys_is_escaped() -> None:
    shown = table(("NAME", "N"), [("a\x1b[2J\r\n", "1")])
    assert shown == "NAME          N\na\\x1b[2J\\r\\n  1"


def test_no_rows() -> None:
    assert table(("NAME", "N"), []) == "NAME  N"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9994, "9.99 kB"),
        (9996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_500_000_000, "1.50 GB"),
        (10**21, "1000000 PB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (86_400 * 3 + 7200, "3 d 2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def a_forward(counters: Counters, udp: UdpCounters | None = None) -> dict[str, Any]:
    described = {"listen": "[::]:80", "target": "172.17.0.2:80", "client_ip": "proxy-v2"}
    numbers = counters.snapshot() | ({"udp": snapshot_of(udp)} if udp else {})
    return {**described, "state": "open", "since": 0.0, **numbers}


def test_a_status() -> None:
    counters = Counters(flows=3, ended=1, bytes_up=1200, dial_failures={"connection refused": 2})
    draining = {"listen": "[::]:80", "state": "draining", **Counters(flows=1).snapshot()}
    answer = {
        "version": "1.2.3",
        "pid": 7,
        "since": 0.0,
        "workers": [{}],
        "restarts": 0,
        "forwards": [a_forward(counters), draining],
    }
    first, head, one, other = status.text(answer).splitlines()
    assert first.startswith("v6fwd 1.2.3, process 7, since ")
    assert first.endswith(", 1 worker, 0 restarted")
    assert status.text(answer | {"bans": 0}).splitlines()[0] == first
    assert status.text(answer | {"bans": 2}).splitlines()[0] == f"{first}, 2 bans"
    assert one.split()[:5] == ["[::]:80", "172.17.0.2:80", "proxy-v2", "2", "3"]
    assert one.endswith("2 connection refused")
    assert other.split()[:4] == ["[::]:80", "(draining)", "1", "1"]
    assert other.endswith(" -")
    assert head.index("ERRORS") == one.index("2 connection refused")


def test_a_status_without_forwards() -> None:
    """A sentence in place of a table's head."""
    answer = {"version": "1.2.3", "pid": 7, "since": 0.0, "workers": [{}], "restarts": 0}
    assert status.text({**answer, "forwards": []}).splitlines()[1:] == ["no forward is open"]


def test_who_is_not_seen_as_it_is_marks_the_mode() -> None:
    forward = a_forward(Counters(flows=5)) | {"client_ip": "transparent"}
    assert status.client_ip(forward) == "transparent"
    forward["not_real"] = {"pseudo": 3, "fallback": 1}
    assert status.client_ip(forward) == "transparent (1 fallback, 3 pseudo)"


def test_a_target_that_expects_another_mode() -> None:
    """Its mode is marked, and the line stands below the table."""
    text = "172.17.0.2:80 ended 20 of 20 connections"
    forwards = [{**a_forward(Counters()), "mismatch": text}, a_forward(Counters())]
    head = {"version": "1", "pid": 7, "since": 0.0, "workers": [], "restarts": 0}
    _, _, one, other, last = status.text({**head, "forwards": forwards}).splitlines()
    assert "  proxy-v2 (mismatch)  " in one
    assert "  proxy-v2  " in other
    assert last == f"[::]:80: {text}"


@pytest.mark.parametrize(
    ("counters", "udp", "text"),
    [
        (Counters(ends={"closed": 5, "reset by client": 3, "expired": 1}), None, "-"),
        (Counters(ends={"target failed": 2}, dial_failures={"gone": 2}), None, "2 gone"),
        (Counters(ends={"idle timeout": 2, "stopped": 1}), None, "-"),
        (Counters(ends={"closed before a request": 9, "no request in time": 1}), None, "-"),
        (Counters(ends={"closed before a header": 1, "reset by target": 1}), None, "-"),
        (Counters(ends={"cut at stop": 2, "evicted": 1}), None, "2 cut at stop, 1 evicted"),
        (Counters(ends={"lost with its worker": 1}), None, "1 lost with its worker"),
        (Counters(ends={"refused": 2, "target": 1}), None, "1 target"),
        (Counters(ends={"an end of another version": 1}), None, "1 an end of another version"),
        (
            Counters(header_refused=1, http_refused=2),
            None,
            "2 HTTP refused, 1 PROXY header refused",
        ),
        (
            Counters(dial_failures={"a": 5, "b": 3, "c": 1}, header_refused=1),
            None,
            "5 a, 3 b, 2 others",
        ),
        (Counters(), UdpCounters(no_room=4, sessions=3), "4 datagrams lost: no room"),
    ],
)
def test_errors(counters: Counters, udp: UdpCounters | None, text: str) -> None:
    assert status.errors(a_forward(counters, udp)) == text


def a_flow(client: str, up: int, seconds: float) -> dict[str, Any]:
    ends = {"listen": "[::]:80", "target": "172.17.0.2:80"}
    moved = {"bytes_up": up, "bytes_down": 0, "seconds": seconds, "flows": 1}
    return {"client": client, "client_port": 5, **ends, **moved}


def test_flows_by_network() -> None:
    live = [
        a_flow("2001:db8::1", 1, 5.0),
        a_flow("2001:db8::ffff", 2, 9.0),
        a_flow("2001:db8:0:1::1", 4, 1.0),
        a_flow("192.0.2.7", 8, 1.0),
    ]
    found = {each["client"]: each for each in grouped(live, "net")}
    assert found.keys() == {"2001:db8::/64", "2001:db8:0:1::/64", "192.0.2.7"}
    one = found["2001:db8::/64"]
    assert (one["flows"], one["bytes_up"], one["seconds"]) == (2, 3, 9.0)
    assert len(grouped(live, "client")) == 4


def test_flows_in_a_table() -> None:
    head, one, other = flows.text(
        [a_flow("2001:db8::1", 1, 5), a_flow("", 2, 61)], None
    ).splitlines()
    assert head.split() == ["CLIENT", "LISTEN", "TARGET", "UP", "DOWN", "FOR"]
    assert one.startswith("[2001:db8::1]:5  [::]:80  172.17.0.2:80  1 B   0 B")
    assert other.split()[0] == "gone"
    assert other.endswith("1 min 1 s")
