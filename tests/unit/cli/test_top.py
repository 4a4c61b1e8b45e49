"""What `top` shows of an answer, and what its keys do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.support.viewed import a_flow, a_forward, a_status
from v6fwd.cli import main
from v6fwd.cli.top_columns import FIRST_SORT, VIEWS, FlowRates, chosen
from v6fwd.cli.top_screen import Choice, Gathered, Screen, figures, plain
from v6fwd.cli.top_terminal import split
from v6fwd.daemon.view.clients import grouped
from v6fwd.daemon.view.rows import Table


def gathered(*forwards: dict[str, Any], **more: Any) -> Gathered:
    """An answer for the view of forwards."""
    status = a_status(*forwards, **more)
    rows = Table().rows(status, 1.0)
    return Gathered("forwards", status, rows, rows)


def screen(choice: Choice, what: Gathered, trouble: str = "") -> list[str]:
    """The lines of a terminal of 80x24."""
    console = Console(width=80, height=24, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(Screen(choice, what, trouble))
    return capture.get().rstrip("\n").split("\n")


def many(number: int = 100) -> Gathered:
    return gathered(*(a_forward(f"[2001:db8::1]:{1000 + port}") for port in range(number)))


def pressed(*keys: str) -> Choice:
    choice = Choice()
    for key in keys:
        choice.press(key)
    return choice


def test_it_fits_a_terminal() -> None:
    lines = screen(Choice(), many())
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    for name in [column.name for column in VIEWS["forwards"]]:
        assert name in lines[2]
    assert lines[-1].startswith("[forwards] q quit")


def test_it_scrolls_to_the_end_and_no_further() -> None:
    choice = Choice(order="LISTEN", upwards=True, at=10**6)
    lines = screen(choice, many())
    assert (choice.at, choice.first) == (99, 80)
    assert "[2001:db8::1]:1000" in lines[-2]  # the order was reversed
    for _ in range(20):
        choice.press("\x1b[A")
        screen(choice, many())
    assert (choice.at, choice.first) == (79, 79)


def test_details_of_a_forward() -> None:
    choice = Choice(order="LISTEN")
    for _ in range(7):
        choice.press("j")
    choice.press("d")
    lines = screen(choice, many())
    assert lines[2].split() == ["listen", "[2001:db8::1]:1007"]
    assert lines[-1].startswith("[forwards] d, Esc: back")
    choice.press("\x1b")
    assert len(screen(choice, many())) == 24
    assert choice.at == 7


def flows_of(*ports: int) -> Gathered:
    rates = {"up": 0.0, "down": 0.0}
    flows = [a_flow("2001:db8::5", client_port=port) | rates for port in ports]
    return Gathered("flows", a_status(), [], flows)


def test_details_stay_with_their_flow() -> None:
    choice = Choice("flows", "CLIENT")
    choice.press("\r")
    assert "5001" in "\n".join(screen(choice, flows_of(5001, 5002)))
    lines = screen(choice, flows_of(4000, 5001))
    assert ["port", "5001"] in [line.split() for line in lines]
    assert ["worker", "process", "7"] in [line.split() for line in lines]
    assert screen(choice, flows_of(5002))[2] == "it is no longer there"
    choice.press("\r")
    assert "5002" in "\n".join(screen(choice, flows_of(5002)))


def test_details_of_what_comes_from_outside_are_text() -> None:
    gathered = flows_of(5001)
    gathered.items[0]["target"] = "[red]\x1b[2J\u202e[/red]"
    choice = Choice("flows", "CLIENT", is_open=True)
    text = "\n".join(screen(choice, gathered))
    assert "[red]" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_a_filter_is_typed() -> None:
    choice = pressed("/", *"1007x", "\x7f")
    assert screen(choice, many())[-1].startswith("filter: 1007_")
    choice.press("\r")
    lines = screen(choice, many())
    assert sum("[2001:db8::1]:" in line for line in lines) == 1
    choice.press("/")
    choice.press("\x1b")
    assert (choice.words, choice.is_typing) == ("", False)


def test_keys() -> None:
    assert pressed("q").is_over
    assert pressed("p").is_paused
    assert not pressed("p", " ").is_paused
    assert pressed("r").upwards
    assert [pressed(*"\t" * turns).view for turns in range(5)] == [*VIEWS, "forwards"]
    names = [column.name for column in VIEWS["forwards"]]
    assert pressed(*"s" * len(names)).order == FIRST_SORT
    assert pressed("s", "\t").order == FIRST_SORT, "no view but the first has ERRORS"
    assert not pressed("/", "q").is_over


def test_special_keys_are_one_key() -> None:
    assert split("q\x1b[A\x1b[5~/\t\x1b") == ["q", "\x1b[A", "\x1b[5~", "/", "\t", "\x1b"]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_the_first_order(view: str) -> None:
    assert FIRST_SORT in [column.name for column in VIEWS[view]]


def test_what_comes_from_outside_is_text() -> None:
    hostile = "[red]\x1b[2J\u202e[/red]"
    held = [{"listen": "[::]:80", "target": hostile, "why": hostile}]
    answer = gathered(held=held, published=[held[0] | {"container": hostile, "source": "x"}])
    for text in ("\n".join(screen(Choice(words=""), answer)), plain(Choice(), answer)):
        assert "[red]" in text
        assert "\x1b[2J" not in text
        assert "\u202e" not in text


def test_trouble_is_shown_and_the_last_answer_kept() -> None:
    lines = screen(Choice(), many(1), "no answer at control socket")
    assert lines[1] == "no answer at control socket"
    assert "[2001:db8::1]:1000" in lines[3]


def test_an_answer_for_another_view_shows_no_items() -> None:
    lines = screen(Choice("net"), many(1), "no answer")
    assert len(lines) == 3


def test_figures() -> None:
    held = [{"listen": "[::]:81", "target": "", "why": "no mode"}]
    forwards = a_forward(flows=3, ended=1), a_forward("[::]:82", mismatch="of another mode")
    first, second = figures(gathered(*forwards, held=held))
    assert first.startswith("v6fwd 1.2.3, process 3, since ")
    assert second.startswith("2 live, 0.0 flows/s, up 0 B/s, down 0 B/s, 0.0 errors/s")
    assert second.endswith("1 held, 1 mismatched")


def rates_of(flows: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(flow["up"], flow["down"]) for flow in flows]


def test_rates_of_flows() -> None:
    rates = FlowRates()
    rates.add([a_flow("::1", 100, 0, seconds=50.0)], 1000.0)
    flows = [
        a_flow("::1", 300, 40, seconds=52.0),
        a_flow("::2", 10, 0, seconds=0.5),  # is new
        a_flow("", 5, 0, seconds=10.0, client_port=0),  # these two cannot be told apart
        a_flow("", 7, 0, seconds=10.0, client_port=0),
    ]
    rates.add(flows, 1002.0)
    assert rates_of(flows) == [(100, 20), (20, 0), (2.5, 0), (3.5, 0)]


def test_another_flow_from_the_same_port() -> None:
    rates = FlowRates()
    rates.add([a_flow("::1", 1000, seconds=50.0)], 1000.0)
    flows = [a_flow("::1", 30, seconds=1.0)]
    rates.add(flows, 1002.0)
    assert rates_of(flows) == [(30, 0)]


def test_rates_of_networks() -> None:
    flows = [a_flow("2001:db8::1", up=0) | {"up": 1.5, "down": 2.0} for _ in range(2)]
    (group,) = grouped(flows, "net", ("bytes_up", "bytes_down", "up", "down"))
    assert (group["up"], group["down"], group["flows"]) == (3.0, 4.0, 2)
    assert chosen([group], "net", "2001:DB8", "UP", upwards=False) == [group]
    assert chosen([group], "net", "192.0.2", "UP", upwards=False) == []


def test_a_column_that_a_view_has_not() -> None:
    result = CliRunner().invoke(main, ["top", "--by", "net", "--sort", "errors", "--once"])
    assert result.exit_code == 2
    assert "--by net has no column errors" in result.output


def test_no_daemon(tmp_path: Any) -> None:
    result = CliRunner().invoke(main, ["top", "--once", "--socket", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert result.output.startswith("no answer at control socket")
