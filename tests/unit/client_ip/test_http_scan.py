"""The native scanner takes exactly the usual heads that the patterns take, and finds the same."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.scanned_alike import (
    IS_NATIVE,
    assert_request_alike,
    assert_response_alike,
    block_parts,
    head_parts,
    response_parts,
    some_response,
)
from tests.support.usual_heads import some_head
from tests.unit.client_ip.http_samples import BAD_HEADS, GOOD, get, with_field
from v6fwd.client_ip.http import usual, usual_response
from v6fwd.client_ip.http.syntax import MAX_FIELDS

HEADS = 20_000
"""Of ten million of each kind, none was read in two ways."""

pytestmark = pytest.mark.skipif(not IS_NATIVE, reason="the native scanner is not built")

REQUEST = b"GET /a HTTP/1.1\r\nA-b: c d\r\nConnection: keep-alive\r\nHost: x:1\r\nE:\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nA.b: c\td\r\nContent-Length: 12\r\nConnection: keep-alive\r\n\r\nx"
both = pytest.mark.parametrize(
    ("sample", "alike"),
    [(REQUEST, assert_request_alike), (RESPONSE, assert_response_alike)],
    ids=["request", "response"],
)


def test_some_heads() -> None:
    chance = random.Random(18)
    usual_heads = sum(assert_request_alike(some_head(chance)) for _ in range(HEADS))
    assert HEADS // 4 < usual_heads < HEADS * 3 // 4


def test_some_responses() -> None:
    chance = random.Random(18)
    usual_heads = sum(assert_response_alike(some_response(chance)) for _ in range(HEADS))
    assert HEADS // 4 < usual_heads < HEADS * 3 // 4


def test_samples() -> None:
    raws = [raw for raw, _ in GOOD.values()] + [raw for raw, *_ in BAD_HEADS.values()]
    assert {assert_request_alike(raw) for raw in raws} == {True, False}


@both
def test_each_byte_at_each_place(sample: bytes, alike: object) -> None:
    """In the place of another, and between two."""
    assert callable(alike)
    assert alike(sample)
    for at in range(len(sample)):
        for number in range(256):
            byte = bytes((number,))
            alike(sample[:at] + byte + sample[at + 1 :])
            alike(sample[:at] + byte + sample[at:])


@both
def test_each_part(sample: bytes, alike: object) -> None:
    """Cut at each place, on both sides; without each part; and each part twice."""
    assert callable(alike)
    for at in range(len(sample) + 1):
        alike(sample[at:])
        for end in range(at, len(sample) + 1):
            alike(sample[:at] + sample[end:])
            alike(sample[:end] + sample[at:])


@given(st.lists(st.sampled_from(REQUEST.split(b"\r\n")), max_size=8), st.binary(max_size=9))
@example([b"GET / HTTP/1.1", b"Host: a"], b"")
@settings(max_examples=300)
def test_lines_in_any_order(lines: list[bytes], odd: bytes) -> None:
    assert_request_alike(b"\r\n".join([*lines, odd, b"", b""]))
    assert_request_alike(b"\r\n".join([*lines, b"", b""]))


@given(st.lists(st.sampled_from(RESPONSE.split(b"\r\n")), max_size=8), st.binary(max_size=9))
@settings(max_examples=300)
def test_lines_of_responses_in_any_order(lines: list[bytes], odd: bytes) -> None:
    assert_response_alike(b"\r\n".join([*lines, odd, b"", b""]))
    assert_response_alike(b"\r\n".join([*lines, b"", b""]))


@pytest.mark.parametrize("word", usual._SPECIAL.decode().split("|"))
def test_names_that_begin_alike(word: str) -> None:
    """Each special name, a part of it, and with more behind it, in three ways to write it."""
    letters = "".join(char for char in word if char.isalnum() or char == "-")
    for first in ("", "h", "c", "t", "u", "e", "k", "p", "f", "x"):
        for name in (first + letters, letters[1:], letters[:-1], letters + "-a", letters + "1"):
            for raw in (name.encode(), name.upper().encode(), name.title().encode()):
                assert_request_alike(with_field(raw + b": a"))
                assert_response_alike(RESPONSE.replace(b"A.b", raw))


def padded(value: int) -> bytes:
    return b"a" * value


LIMITS = {
    "method": (32, lambda size: get(line=b"A" * size + b" / HTTP/1.1")),
    "target": (7000, lambda size: get(line=b"GET /" + padded(size) + b" HTTP/1.1")),
    "host": (262, lambda size: get(b"Host: " + padded(size) + b"\r\n")),
    "fields": (MAX_FIELDS, lambda size: get(b"Host: a\r\n" + b"A: b\r\n" * (size - 1))),
}


@pytest.mark.parametrize(("most", "make"), LIMITS.values(), ids=LIMITS.keys())
def test_limits(most: int, make: object) -> None:
    assert callable(make)
    assert assert_request_alike(make(most))
    assert not assert_request_alike(make(most + 1))


@pytest.mark.parametrize(
    ("length", "is_usual"), [(b"9" * 18, True), (b"1" + b"0" * 18, False), (b"9" * 40, False)]
)
def test_the_longest_length(length: bytes, is_usual: bool) -> None:
    assert assert_response_alike(RESPONSE.replace(b"12", length)) is is_usual


def test_only_bytes_are_read() -> None:
    for read in (head_parts, block_parts, response_parts):
        for wrong in ("GET", bytearray(REQUEST), memoryview(REQUEST), None, 1):
            with pytest.raises(TypeError):
                read(wrong)  # type: ignore[arg-type]


def test_without_the_native_scanner_the_patterns_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "v6fwd.client_ip.http._scan", None)
    monkeypatch.delattr("v6fwd.client_ip.http._scan")
    assert usual.scanner() == (usual.head_parts_by_pattern, usual.block_parts_by_pattern)
    assert usual_response.scanner() is usual_response.response_parts_by_pattern
