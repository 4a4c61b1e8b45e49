"""The quick way over many plain chunks takes exactly what the reader of single chunks takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from v6fwd.client_ip.http import chunks
from v6fwd.client_ip.http.chunk_runs import plain_end_by_pattern, scanner
from v6fwd.client_ip.http.chunks import LOOSE, STRICT, ChunkReader, Grammar, never_late
from v6fwd.client_ip.http.syntax import HttpRefused

Scanner = Callable[[bytes, int], int]
SCANNERS: list[Scanner] = [plain_end_by_pattern]
if scanner() is not plain_end_by_pattern:
    SCANNERS.append(scanner())
each_scanner = pytest.mark.parametrize("plain_end", SCANNERS)


def plain(size: int, form: bytes = b"%x") -> bytes:
    return form % size + b"\r\n" + b"\n1\r\nx\r\n;0" * (size // 9) + b"z" * (size % 9) + b"\r\n"


SPARE = 150  # bytes of extensions


class Read(NamedTuple):
    """What a reader makes of some bytes."""

    passed: bytes
    done: bool
    left: int
    spare: int
    was_loose: bool
    error: HttpRefused | None


def read(grammar: Grammar, parts: list[bytes], plain_end: Scanner = SCANNERS[-1]) -> Read:
    with patch.object(chunks, "plain_end", plain_end):
        return _read(grammar, parts)


def _read(grammar: Grammar, parts: list[bytes]) -> Read:
    reader = ChunkReader(grammar, SPARE)
    held, passed = b"", b""
    for part in parts:
        held += part
        end = reader.follow(held, 0, never_late)
        at = 0
        for start, stop, instead in reader.cuts:
            passed += held[at:start] + instead
            at = stop
        passed += held[at:end]
        held = held[end:]
        if reader.done or reader.error is not None:
            break
    return Read(passed, reader.done, reader.left, reader.spare, reader.was_loose, reader.error)


def read_singly(grammar: Grammar, parts: list[bytes]) -> Read:
    with patch.object(chunks, "even_end", lambda data, at, size, form: at):  # noqa: ARG005
        return read(grammar, parts, lambda data, at: at)  # noqa: ARG005


SIZES = st.one_of(st.integers(1, 20), st.sampled_from([100, 255, 256, 257, 300, 4096]))
FORMS = st.sampled_from([b"%x", b"%X", b"0%x", b"%015x", b"%016x", b"%017x"])
RUNS = st.builds(
    lambda size, form, count: plain(size, form) * count,
    SIZES,
    FORMS,
    st.sampled_from([1, 2, 7, 8, 9, 63, 64, 65, 70, 330]),
)
_ODD = [
    *(b"1;a\r\nx\r\n", b"3 \r\nabc\r\n", b"1\nx\n", b"1\r\nxx\r\n", b"2\r\nx\r\n"),
    *(b"1\r\nx\r\r", b"1\r\nx\n\n", b"0\r\n\r\n", b"00\r\nA: b\r\n\r\n", b"\r\n", b"g\r\n"),
    *(b"1\rx", b"-1\r\nx", b"0x1\r\nx\r\n", b"+1\r\nx\r\n", b" 1\r\nx\r\n"),
    b"1_0\r\n" + b"x" * 16 + b"\r\n",
]
ODD = st.sampled_from(_ODD)
_FORMS = [b"%x\n%b\n", b"%x \r\n%b\r\n", b"%x;a\r\n%b\r\n", b"%x;a\n%b\r\n", b"%x\r\n%b\n"]
_FORMS += [b"%016x\r\n%b\r\n", b'%X;a="b";c\r\n%b\r\n', b"%x ; a b\r\n%b\r\n", b"%x;a\r\n%b\n"]
ODD_RUNS = st.builds(
    lambda form, size, count: form % (size, (b"\n1;\r" * size)[:size]) * count,
    st.sampled_from(_FORMS),
    SIZES,
    st.sampled_from([1, 7, 8, 9, 20, 64, 65, 100]),
)
BODIES = st.lists(st.one_of(RUNS, ODD_RUNS, ODD, st.binary(max_size=4)), max_size=6).map(b"".join)
CUTS = st.lists(st.integers(0, 10_000), max_size=6)


@settings(max_examples=300, deadline=None)
@given(BODIES, CUTS, st.sampled_from([STRICT, LOOSE]))
@example(plain(1) * 70 + b"1\r\nx\r" + plain(1) * 70, [], STRICT)
@example(plain(1) * 70 + b"1;a=bcdefghijk\r\nx\r\n" + plain(255) * 9, [], STRICT)
def test_takes_what_the_reader_of_single_chunks_takes(
    body: bytes, cuts: list[int], grammar: Grammar
) -> None:
    places = sorted({cut % (len(body) + 1) for cut in cuts})
    parts = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    singly = read_singly(grammar, [body])
    for each in SCANNERS:
        assert read(grammar, parts, each) == singly
    assert read_singly(grammar, parts) == singly


@given(BODIES, st.sampled_from([STRICT, LOOSE]))
@settings(max_examples=50, deadline=None)
def test_byte_by_byte(body: bytes, grammar: Grammar) -> None:
    bytes_ = [body[at : at + 1] for at in range(min(len(body), 2000))]
    for each in SCANNERS:
        assert read(grammar, bytes_, each) == read(grammar, [body[:2000]], each)


@given(BODIES, st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_both_scanners_find_the_same_end(body: bytes, at: int, end: int) -> None:
    """Wherever it is cut, and from any place on."""
    body = body[: end % (len(body) + 1)]
    at %= len(body) + 1
    assert len({each(body, at) for each in SCANNERS}) == 1


@each_scanner
@pytest.mark.parametrize("wrong", range(6))
@pytest.mark.parametrize("behind", [0, 1, 7, 8, 63, 64, 65, 319, 320, 321, 999])
def test_a_wrong_byte_in_a_long_run(behind: int, wrong: int, plain_end: Scanner) -> None:
    """Each column is compared in each chunk."""
    run = bytearray(plain(1) * 1000)
    run[6 * behind + wrong] ^= 4
    good = 1000 if wrong == 3 else behind  # column 3 is data
    assert plain_end(bytes(run), 0) == 6 * good


@each_scanner
@pytest.mark.parametrize("form", [b"%x", b"%X", b"00%x", b"%015x"])
def test_every_size_alone_in_a_run_and_among_others(form: bytes, plain_end: Scanner) -> None:
    for size in (*range(1, 300), 4095, 70_000):
        chunk, other = plain(size, form), plain(1 + size % 20)
        for data in (chunk, chunk * 9, chunk + other, other + chunk + other + chunk):
            assert plain_end(data, 0) == len(data)
            assert plain_end(b"1" + data, 1) == len(data) + 1
            assert plain_end(data + chunk[:-1], 0) == len(data)


_NO_RUN = [b"", b"1", b"1\r", b"1\r\n", b"1\r\n\r\n", b"1\r\nx", b"1\r\nx\r", b"1\r\nx\n\r"]
_NO_RUN += [b"0\r\n\r\n", b"000\r\n\r\n", b"%016x\r\nx\r\n" % 1, b"f" * 15 + b"\r\nx\r\n"]
_NO_RUN += [b"7fffffffffffff" + b"\r\n", b"f" * 16 + b"\r\n\r\n", b"2\r\nx\r\n", b"1\rxx\r\n"]


@each_scanner
@pytest.mark.parametrize("data", _NO_RUN)
def test_takes_nothing_else(data: bytes, plain_end: Scanner) -> None:
    assert plain_end(data, 0) == 0
    assert plain_end(plain(1) + data, 6) == 6
    assert plain_end(plain(1) + data, 0) == 6


@each_scanner
@pytest.mark.parametrize("digit", range(256))
def test_digits_are_those_of_int(digit: int, plain_end: Scanner) -> None:
    one = bytes([digit])
    size = int(one, 16) if one in b"0123456789abcdefABCDEF" else 0
    data = one + b"\r\n" + b"x" * size + b"\r\n"
    assert plain_end(data, 0) == (len(data) if size else 0)


native = pytest.mark.skipif(len(SCANNERS) < 2, reason="the native scanner is not built")


@native
def test_the_native_scanner_reads_nothing_outside_of_its_bytes() -> None:
    find = SCANNERS[-1]
    for at in (-1, 2, 1 << 62):
        with pytest.raises(ValueError, match="outside"):
            find(b"1", at)
    for wrong in (("1", 0), (bytearray(b"1"), 0), (b"1", "0"), (b"1",), (b"1", 0, 0)):
        with pytest.raises(TypeError):
            find(*wrong)
    with pytest.raises(OverflowError):
        find(b"1", 1 << 64)


@native
def test_without_the_native_scanner_the_pattern_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scanner() is not plain_end_by_pattern
    monkeypatch.setitem(sys.modules, "v6fwd.client_ip.http._scan", None)
    assert scanner() is plain_end_by_pattern


def test_what_extensions_may_have_does_not_depend_on_cuts() -> None:
    """The data of plain chunks allows no extensions, however they are read."""
    half = b"1;" + b"a" * (SPARE // 2) + b"\r\n"
    body = half + b"x\r\n" + plain(255) * 40 + half
    whole = read(STRICT, [body])
    assert whole.error == HttpRefused(400, "chunk extensions too large")
    assert read(STRICT, [body[at : at + 100] for at in range(0, len(body), 100)]) == whole


@pytest.mark.parametrize("extension", [b";a", b";abc=defg"])
def test_a_run_may_have_as_many_extensions_as_single_chunks(extension: bytes) -> None:
    chunk = b"1" + extension + b"\r\nx\r\n"
    whole = read(STRICT, [chunk * 1000])
    assert whole == read_singly(STRICT, [chunk * 1000])
    assert whole.error == HttpRefused(400, "chunk extensions too large")
    assert len(whole.passed) == len(plain(1)) * (SPARE // len(extension))


@pytest.mark.parametrize("form", _FORMS)
def test_a_run_in_another_form_is_one_step(form: bytes) -> None:
    """The clock is looked at behind it, and it is rewritten as a whole."""
    reader = ChunkReader(LOOSE)
    run = form % (3, b"\n\r\n") * 500
    assert reader.follow(run + form % (2, b"xy"), 0, lambda: True) == len(run)
    assert reader.is_late
    assert len(reader.cuts) <= 1
