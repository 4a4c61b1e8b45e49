"""The mode that follows from what was accepted, and how large a header may be."""

from __future__ import annotations

import pytest

from v6fwd.model import ClientIP, UdpProxy, parse_target
from v6fwd.probe.choose import EVERY, FIELD, FIRST, choose, choose_udp
from v6fwd.probe.forms import Form
from v6fwd.probe.judge import Result, Verdict
from v6fwd.probe.report import Choice, Largest, Report, Tried
from v6fwd.probe.run import find_largest

FORMS = ("none", "v1", "v2", "v2-split", "v2-wrong-crc")


def tried(*accepted: str, seen: bool | None = None) -> dict[str, Tried]:
    """What became of FORMS, and of the accepted ones."""
    results = {
        name: Result.ACCEPTED if name in accepted else Result.REFUSED
        for name in {*FORMS, *accepted}
    }
    return {
        name: Tried(Form(name, b"", ""), Verdict(result, ""), seen)
        for name, result in results.items()
    }


@pytest.mark.parametrize(
    ("accepted", "seen", "mode", "attention"),
    [
        (("v1", "v2"), None, ClientIP.PROXY_V2, False),
        (("none", "v1", "v2"), None, ClientIP.PROXY_V2, False),
        (("v1",), None, ClientIP.PROXY_V1, False),
        (("v1", "v2"), False, ClientIP.PROXY_V2, True),  # it reads the header, and trusts it not
        (("none",), None, ClientIP.TRANSPARENT, False),
        (("none", FIELD), True, ClientIP.X_FORWARDED_FOR, False),
        (("none", FIELD), False, ClientIP.TRANSPARENT, False),
        (("none", FIELD), None, ClientIP.TRANSPARENT, False),
        ((), None, None, True),
    ],
)
def test_tcp(
    accepted: tuple[str, ...], seen: bool | None, mode: ClientIP | None, attention: bool
) -> None:
    choice = choose(tried(*accepted, seen=seen))
    assert (choice.mode, choice.needs_attention) == (mode, attention)


@pytest.mark.parametrize(
    ("accepted", "mode", "udp_proxy"),
    [
        (("v2", EVERY), ClientIP.PROXY_V2, UdpProxy.EVERY),
        (("none", "v2", EVERY, FIRST), ClientIP.PROXY_V2, UdpProxy.EVERY),
        (("v2", FIRST), ClientIP.PROXY_V2, UdpProxy.FIRST),
        (("none", "v2", FIRST), ClientIP.TRANSPARENT, UdpProxy.EVERY),
        (("none",), ClientIP.TRANSPARENT, UdpProxy.EVERY),
        ((), None, UdpProxy.EVERY),
    ],
)
def test_udp(accepted: tuple[str, ...], mode: ClientIP | None, udp_proxy: UdpProxy) -> None:
    choice = choose_udp(tried(*accepted))
    assert (choice.mode, choice.udp_proxy) == (mode, udp_proxy)


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        (("v2", "v2-split"), ["without a header nothing"]),
        (("none", "v2", "v2-split"), ["without a header it answers"]),
        (("v2", "v2-wrong-crc"), ["without a header nothing", "two segments", "CRC32C"]),
    ],
)
def test_notes(accepted: tuple[str, ...], words: list[str]) -> None:
    notes = choose(tried(*accepted)).notes
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


@pytest.mark.parametrize("limit", [52, 53, 107, 232, 300, 428, 512, 1024, 1500, 16384])
def test_the_largest_header(limit: int) -> None:
    asked: list[int] = []

    def takes(size: int) -> bool:
        asked.append(size)
        return size <= limit

    assert find_largest(takes, (52, 107, 232, 512, 1024, 16384, 65551)) == Largest(limit, limit + 1)
    assert len(asked) <= 25


def test_a_limit_that_nobody_needs_exactly() -> None:
    found = find_largest(lambda size: size <= 65550, (52, 1024, 16384, 65551))
    assert found == Largest(16384, 65551)


def test_no_limit_at_all() -> None:
    assert str(find_largest(lambda size: True, (52, 65551))) == "65551 bytes and more"  # noqa: ARG005


def test_a_limit_between_the_rungs_of_udp() -> None:
    found = find_largest(lambda size: size <= 550, (52, 512, 600, 1400), is_exact=False)
    assert str(found) == "513 bytes, not 600"


@pytest.mark.parametrize(
    ("target", "choice", "command", "label"),
    [
        ("172.17.0.2:80", Choice(ClientIP.PROXY_V2, ""),
         "v6fwd forward '[::]:80' '172.17.0.2:80' --client-ip proxy-v2",
         "v6fwd.client-ip.80=proxy-v2"),
        ("[fd00::2]:53/udp", Choice(ClientIP.PROXY_V2, ""),
         "v6fwd forward '[::]:53/udp' '[fd00::2]:53' --client-ip proxy-v2",
         "v6fwd.client-ip.53-udp=proxy-v2"),
        ("172.17.0.2:53/udp", Choice(ClientIP.PROXY_V2, "", UdpProxy.FIRST),
         "v6fwd forward '[::]:53/udp' '172.17.0.2:53' --client-ip proxy-v2 --udp-proxy first", ""),
        ("172.17.0.2:80", Choice(None, "nothing", needs_attention=True), "", ""),
    ],
)  # fmt: skip
def test_the_command_and_the_label(target: str, choice: Choice, command: str, label: str) -> None:
    (endpoint,) = parse_target(target)
    report = Report(endpoint, "http", "", "", (), None, choice)
    assert (report.command, report.label) == (command, label)


def test_the_keys_of_json_stay() -> None:
    (endpoint,) = parse_target("172.17.0.2:80")
    one = Tried(Form("v2", b"\r\n", "v2 header"), Verdict(Result.ACCEPTED, "HTTP"), True)
    choice = Choice(ClientIP.PROXY_V2, "why", notes=("a note",))
    report = Report(endpoint, "http", "GET", "::1", (one,), Largest(232, 233), choice)
    assert report.to_json() == {
        "target": "172.17.0.2:80",
        "speaks": "http",
        "opening": "GET",
        "client": "::1",
        "forms": [
            {
                "form": "v2",
                "what": "v2 header",
                "sent": "0d0a",
                "result": "accepted",
                "answer": "HTTP",
                "client_seen": True,
            }
        ],
        "largest_header": 232,
        "largest_refused": 233,
        "mode": "proxy-v2",
        "udp_proxy": None,
        "why": "why",
        "command": "v6fwd forward '[::]:80' '172.17.0.2:80' --client-ip proxy-v2",
        "label": "v6fwd.client-ip.80=proxy-v2",
        "notes": ["a note"],
        "needs_attention": False,
    }
