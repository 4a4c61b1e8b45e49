"""Patterns that are compiled when they are first used."""

from __future__ import annotations

import re

import pytest

from v6fwd.model.patterns import Lazy


def test_it_does_what_a_pattern_does() -> None:
    pattern, lazy = re.compile(b"a(.)", re.DOTALL), Lazy(b"a(.)", re.DOTALL)
    for _ in range(2):
        for text in (b"a\n", b"xa\n", b"a\nb", b"b"):
            for name in ("match", "search", "fullmatch"):
                found = getattr(lazy, name)(text)
                assert (found and found[1]) == ((m := getattr(pattern, name)(text)) and m[1])


def test_it_is_compiled_once_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    compile_ = re.compile

    def compiled(pattern: bytes, flags: int = 0) -> re.Pattern[bytes]:
        made.append(pattern)
        return compile_(pattern, flags)

    monkeypatch.setattr(re, "compile", compiled)
    lazy = Lazy(b"a")
    assert made == []
    assert lazy.match(b"a")
    assert lazy.match(b"a")
    assert made == [b"a"]


def test_what_a_pattern_does_not_have_it_has_neither() -> None:
    with pytest.raises(AttributeError):
        Lazy(b"a").nothing  # noqa: B018
