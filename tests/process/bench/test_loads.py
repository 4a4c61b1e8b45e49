"""What load generators say, and the order of measurements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.peers import PEERS
from bench.processes import UDP
from bench.run import interleave, make_plan
from bench.scenarios import SCENARIOS
from bench.scenarios.bulk import received
from bench.scenarios.datagrams import delivered
from bench.scenarios.dns import answered
from bench.scenarios.http import HttpBodies, HttpRequests, _check_count, reported
from bench.scenarios.requests import parse
from bench.table import number
from bench.trial import TrialError


def iperf(sent: int, got: int) -> str:
    end = {
        "sum_sent": {"bytes": sent, "seconds": 2.0},
        "sum_received": {"bytes": got, "seconds": 2.1},
    }
    return json.dumps({"end": end})


def test_iperf_counts_what_was_received() -> None:
    assert received(iperf(1000, 900), 1) == (900, 2.1)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (iperf(10**9, 10**9 - 65_000_000), "935000000 were received"),
        (iperf(1000, 1001), "iperf3 sent 1000 bytes, 1001 were received"),
        (iperf(0, 0), "0 were received"),
        (json.dumps({"error": "unable to connect"}), "iperf3: unable to connect"),
    ],
)
def test_iperf_counts_that_differ(output: str, message: str) -> None:
    with pytest.raises(TrialError, match=message):
        received(output, 1)


def test_redis_benchmark_table() -> None:
    output = (
        "WARNING: Could not fetch server CONFIG\n"
        '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms",'
        '"p99_latency_ms","max_latency_ms"\n'
        '"PING_MBULK","50000.00","0.9","0.1","0.8","1.2","1.5","9.0"\n'
    )
    assert parse(output) == {"rps": 50000.0, "p50_latency_ms": 0.8, "p99_latency_ms": 1.5}


def test_redis_benchmark_without_a_table() -> None:
    with pytest.raises(TrialError, match="no table"):
        parse("Error: Connection reset by peer\n")


def test_datagrams_lost_and_late_are_shares() -> None:
    output = json.dumps({"sent": 1000, "received": 900, "late": 9, "seconds": 3.0})
    assert delivered(output) == (900, {"rate": 300.0, "lost": 10.0, "late": 1.0})


@pytest.mark.parametrize("received", [0, 1001])
def test_datagrams_that_cannot_be(received: int) -> None:
    counts = {"sent": 1000, "received": received, "late": 0, "seconds": 3.0}
    with pytest.raises(TrialError, match=f"{received} datagrams were received, 1000 were sent"):
        delivered(json.dumps(counts))


def dnsperf(sent: int, completed: int, codes: str) -> str:
    return (
        "Statistics:\n\n"
        f"  Queries sent:         {sent}\n"
        f"  Queries completed:    {completed} ({100 * completed / sent:.2f}%)\n"
        f"  Queries lost:         {sent - completed} (0.00%)\n\n"
        f"  Response codes:       {codes}\n"
        "  Queries per second:   5000.500000\n\n"
        "  Average Latency (s):  0.002000 (min 0.000100, max 0.010000)\n"
    )


def test_dnsperf_statistics() -> None:
    count, figures = answered(dnsperf(1000, 1000, "NOERROR 1000 (100.00%)"))
    assert count == 1000
    assert figures == {"rate": 5000.5, "average": 2.0}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (dnsperf(1000, 999, "NOERROR 999 (100.00%)"), "999 of 1000 queries answered"),
        (dnsperf(1000, 1000, "NOERROR 1 (0.10%), REFUSED 999 (99.90%)"), "some wrongly"),
        (dnsperf(1000, 0, ""), "0 of 1000"),
        ("Error: no server\n", "dnsperf gave no 'Queries sent'"),
    ],
)
def test_dnsperf_that_lost_a_query(output: str, message: str) -> None:
    with pytest.raises(TrialError, match=message):
        answered(output)


def wrk(**changes: float) -> str:
    report = {"requests": 100, "bytes": 5000, "seconds": 2.0, "p50": 0.5, "p99": 1.5, "errors": 0}
    return f"Running 2s test\n  100 requests in 2.00s\n{json.dumps(report | changes)}\n"


def test_wrk_report() -> None:
    report = reported(wrk(), least=50)
    assert report["requests"] == 100
    assert (report["seconds"], report["p50"], report["p99"]) == (2.0, 0.5, 1.5)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (wrk(errors=1), "100 requests, 1 errors"),
        (wrk(requests=0), "0 requests, 0 errors"),
        (wrk(bytes=4999), "4999 bytes in 100 answers"),
        ("unable to connect\n", "wrk gave no report"),
    ],
)
def test_wrk_that_had_a_bad_answer(output: str, message: str) -> None:
    with pytest.raises(TrialError, match=message):
        reported(output, least=50)


@pytest.mark.parametrize("counted", [100, 108, 109])
def test_requests_under_way_at_the_end_may_be_counted(counted: int) -> None:
    _check_count(100, counted, at=8)


@pytest.mark.parametrize("counted", [99, 110])
def test_a_target_that_saw_other_requests(counted: int) -> None:
    with pytest.raises(TrialError, match=f"100 answers, the target {counted} requests"):
        _check_count(100, counted, at=8)


def test_http_requests_are_for_peers_that_name_clients_in_them() -> None:
    http = {"v6fwd-http", "haproxy-http", "nginx-http"}
    assert {peer.name for peer in PEERS if HttpRequests(1, in_quick=False).is_about(peer)} == http
    assert {
        peer.name for peer in PEERS if HttpBodies("up", in_quick=False).is_about(peer)
    } == http | {"v6fwd"}


def test_no_other_scenario_is_about_them() -> None:
    others = [one for one in SCENARIOS if not isinstance(one, HttpRequests)]
    assert not [one for one in others for peer in PEERS[-3:] if one.is_about(peer)]


def test_each_round_has_every_peer_once() -> None:
    assert "".join(interleave("ABC", 4)) == "ABCBCACABABC"
    assert list(interleave([], 3)) == []


def test_names_are_unique_and_fit_a_command_line() -> None:
    names = [peer.name for peer in PEERS] + [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert all(name == name.lower().replace(" ", "-") for name in names)


def test_figures_have_keys_of_their_own() -> None:
    for scenario in SCENARIOS:
        keys = [figure.key for figure in scenario.figures]
        assert len(set(keys)) == len(keys)


def test_what_cannot_run_is_left_out_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("bench.peers.limit.BUILT", tmp_path)
    plan = make_plan(SCENARIOS, PEERS, rounds=1, quick=True)
    ours = {"v6fwd", "v6fwd-proxy-v2", "v6fwd-http", "v6fwd-serve-2"}
    assert {peer.name for peer in plan.peers} == ours | {"direct"}
    assert plan.obstacles["socat"] == "no socat"
    assert plan.obstacles["limit-epoll"] == "no gcc"
    assert plan.obstacles["bulk-up-1"] == "no iperf3"
    assert plan.obstacles["http-requests-1"] == "no wrk, nginx"
    assert plan.unsuited["direct in idle-1000"] == "has no process to weigh"
    assert plan.unsuited["direct in udp-sessions-1000"] == "has no process to weigh"


def test_who_relays_no_udp_has_no_part_in_it() -> None:
    udp = [scenario for scenario in SCENARIOS if scenario.protocol == UDP]
    by_name = {peer.name: peer for peer in PEERS}
    for scenario in udp:
        assert scenario.unsuited(by_name["haproxy"]) == "relays no UDP"
        assert "a process for each datagram" in (scenario.unsuited(by_name["socat"]) or "")
        for name in ("v6fwd", "docker-proxy", "nginx"):
            assert scenario.unsuited(by_name[name]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.6, "12346"), (12.34, "12.3"), (1.234, "1.23"), (0.0123, "0.012")],
)
def test_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text
