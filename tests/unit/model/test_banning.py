"""What may be banned, and in which words the rest is refused."""

from __future__ import annotations

import pytest

from v6fwd.model import InputError
from v6fwd.model.banning import network_text, parse_ban, parse_client


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("2001:db8::5", "2001:db8::5"),
        ("2001:DB8:0:1::5/64", "2001:db8:0:1::/64"),
        (" 203.0.113.7 ", "203.0.113.7"),
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7/120", "203.0.113.0/24"),
        ("fe80::1", "fe80::1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2600::/16", "2600::/16"),
        ("240.1.2.3", "240.1.2.3"),
    ],
)
def test_a_ban(text: str, banned: str) -> None:
    assert network_text(parse_ban(text)) == banned


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("::/0", "is too wide to ban; the widest network is a /16"),
        ("2000::/15", "is too wide to ban; the widest network is a /16"),
        ("0.0.0.0/0", "is too wide to ban; the widest network is a /8"),
        ("::1", r"cannot be banned: ::/64 is this host itself \(::1\), or no client's address"),
        ("::/16", "cannot be banned: ::/64 is this host itself"),
        ("::", "cannot be banned: ::/64 is this host itself"),
        ("::ffff:0:0/95", "cannot be banned: ::/64 is this host itself"),
        ("127.0.0.1", "cannot be banned: 127.0.0.0/8 is this host itself"),
        ("::ffff:127.0.0.1", "cannot be banned: 127.0.0.0/8 is this host itself"),
        ("0.0.0.0", "cannot be banned: 0.0.0.0/8 is no client's address"),
        ("224.0.0.1", "cannot be banned: 224.0.0.0/4 is multicast"),
        ("ff02::1", "cannot be banned: ff00::/8 is multicast"),
        ("240.0.0.0/8", "pseudo addresses are banned one by one, as in 240.1.2.3"),
        ("fe80::1%eth0", "has a zone, which no packet carries"),
        ("example.org", "is neither an address nor a network; write 2001:db8::5, "),
        ("", "is neither an address nor a network; write 2001:db8::5, "),
        ("2001:db8::/129", "is neither an address nor a network; write 2001:db8::5, "),
    ],
)
def test_no_ban(text: str, why: str) -> None:
    with pytest.raises(InputError, match=f"{why}"):
        parse_ban(text)


def test_a_client_may_be_anybody() -> None:
    assert network_text(parse_client("::1")) == "::1"
    assert network_text(parse_client("::/0")) == "::/0"
