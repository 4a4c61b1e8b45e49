"""What somebody may have meant who typed something else."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LONGEST = 64  # characters: difflib takes quadratic time
_ALIASES = {
    "xff": "x-forwarded-for",
    "xforwarded": "x-forwarded-for",
    "xrealip": "x-forwarded-for",
    "rfc7239": "forwarded",
    "proxy": "proxy-v2",
    "proxyprotocol": "proxy-v2",
    "pp": "proxy-v2",
    "pp1": "proxy-v1",
    "pp2": "proxy-v2",
    "v1": "proxy-v1",
    "v2": "proxy-v2",
    "tproxy": "transparent",
    "real": "transparent",
    "off": "none",
    "no": "none",
    "false": "none",
}
"""Other programs' words for values of ours, letters and digits alone."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint to append to an error; "" if no known word is similar."""
    names = [*known]
    near = _nearest(word[:_LONGEST], names)
    return f"; did you mean {near}?" if near else ""


def _nearest(word: str, names: list[str]) -> str:
    plain = _plain(word)
    for name in names:
        if plain and plain == _plain(name):
            return name
    if (alias := _ALIASES.get(plain)) in names:
        return str(alias)
    from difflib import get_close_matches  # for mistakes alone

    near = get_close_matches(word.lower().replace("_", "-"), names, 1)
    return near[0] if near else ""


def _plain(word: str) -> str:
    return re.sub("[^a-z0-9]", "", word.lower())
