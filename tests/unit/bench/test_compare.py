"""Who is compared with whom."""

from __future__ import annotations

from bench.compare import CONTESTS, Cell, better_of, rows, summary_contests
from bench.peers import PEERS
from bench.scenarios import SCENARIOS
from bench.scenarios.http import HttpRequests
from bench.stats import Spread
from tests.unit.bench.samples import CPU, GROWTH, RATE, peer, scenario

DOCKER, BETTER, LIMIT, TWO, HEADER, ON_OFF, HTTP, HTTP_TCP, _ = CONTESTS
OURS = peer({"rate": 10.0, "cpu": 5.0}, {"rate": 20.0, "cpu": 6.0})


def test_a_row_has_the_paired_ratios_by_column() -> None:
    theirs = peer({"rate": 5.0, "cpu": 10.0}, {"rate": 10.0, "cpu": 8.0})
    (row,) = rows(DOCKER, [scenario({"v6fwd": OURS, "docker-proxy": theirs})])
    assert row.title == "new connections, 20 at once"
    assert row.cells == {
        "speed": Cell(Spread(2.0, 2.0, 2.0, 2), "docker-proxy"),
        "CPU": Cell(Spread(0.625, 0.5, 0.75, 2), "docker-proxy"),
    }


def test_the_better_rival_is_chosen_figure_by_figure() -> None:
    one = scenario(
        {
            "v6fwd": OURS,
            "haproxy": peer({"rate": 30.0, "cpu": 9.0}, {"rate": 30.0, "cpu": 9.0}),
            "nginx": peer({"rate": 20.0, "cpu": 4.0}, {"rate": 20.0, "cpu": 4.0}),
        }
    )
    (row,) = rows(BETTER, [one])
    assert {column: cell.rival for column, cell in row.cells.items()} == {
        "speed": "haproxy",
        "CPU": "nginx",
    }


def test_a_rival_that_always_failed_is_no_rival() -> None:
    one = scenario({"haproxy": peer(None, None), "nginx": peer({"rate": 1.0}, {"rate": 1.0})})
    assert better_of(one, RATE, ("haproxy", "nginx")) == "nginx"
    assert better_of(one, CPU, ("haproxy", "nginx")) is None


def test_without_either_side_there_is_no_row() -> None:
    assert rows(DOCKER, [scenario({"v6fwd": OURS})]) == []
    assert rows(DOCKER, [scenario({"docker-proxy": OURS})]) == []


def test_a_figure_with_a_row_of_its_own() -> None:
    one = scenario(
        {"v6fwd": peer({"growth": 1.0}), "docker-proxy": peer({"growth": 4.0})}, figures=(GROWTH,)
    )
    (row,) = rows(DOCKER, [one])
    assert row.title == "new connections, 20 at once: the flows alone"
    assert row.cells["memory"].ratio.median == 0.25


def test_header_scenarios_are_for_the_header_contests_alone() -> None:
    peers = {"v6fwd": OURS, "haproxy": OURS, "v6fwd-proxy-v2": OURS, "nginx-proxy-v1": OURS}
    header = scenario(peers, family="proxy header")
    plain = scenario(peers)
    assert [one for one in CONTESTS if rows(one, [header])] == [HEADER, ON_OFF]
    assert [one for one in CONTESTS if rows(one, [plain])] == [BETTER]


def test_http_scenarios_are_for_the_http_contests_alone() -> None:
    everybody = {peer.name: OURS for peer in PEERS}
    for family in {one.family for one in SCENARIOS if isinstance(one, HttpRequests)}:
        http = scenario(everybody, family=family)
        assert [one for one in CONTESTS if rows(one, [http])] == [HTTP, HTTP_TCP]


def test_the_limit_and_two_workers_have_tables_of_their_own() -> None:
    one = scenario({"v6fwd": OURS, "limit-epoll": OURS, "limit-ring": OURS})
    assert [contest for contest in CONTESTS if rows(contest, [one])] == [LIMIT]
    two = scenario({"v6fwd-serve-2": OURS, "nginx-2": OURS})
    assert [contest for contest in CONTESTS if rows(contest, [two])] == [TWO]


def test_the_summary_has_a_column_for_the_limit_where_it_was_measured() -> None:
    peers = {"v6fwd": OURS, "docker-proxy": OURS, "nginx": OURS}
    assert summary_contests([scenario(peers)]) == [DOCKER, BETTER]
    assert summary_contests([scenario(peers | {"limit-ring": OURS})]) == [DOCKER, BETTER, LIMIT]
