"""The quick way over many plain chunks takes exactly what the reader of single chunks takes."""

from __future__ import annotations

from typing import NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from v6fwd.client_ip.http import chunks
from v6fwd.client_ip.http.chunk_runs import plain_end
from v6fwd.client_ip.http.chunks import LOOSE, STRICT, ChunkReader, Grammar, never_late
from v6fwd.client_ip.http.syntax import HttpRefused


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


def read(grammar: Grammar, parts: list[bytes]) -> Read:
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
    with (
        patch.object(chunks, "plain_end", lambda data, at: at),  # noqa: ARG005
        patch.object(chunks, "even_end", lambda data, at, size, form: at),  # noqa: ARG005
    ):
        return read(grammar, parts)


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
    assert read(grammar, parts) == singly
    assert read_singly(grammar, parts) == singly


@given(BODIES, st.sampled_from([STRICT, LOOSE]))
@settings(max_examples=50, deadline=None)
def test_byte_by_byte(body: bytes, grammar: Grammar) -> None:
    bytes_ = [body[at : at + 1] for at in range(min(len(body), 2000))]
    assert read(grammar, bytes_) == read(grammar, [body[:2000]])


@pytest.mark.parametrize("wrong", range(6))
@pytest.mark.parametrize("behind", [0, 1, 7, 8, 63, 64, 65, 319, 320, 321, 999])
def test_a_wrong_byte_in_a_long_run(behind: int, wrong: int) -> None:
    """Each column is compared in each chunk."""
    run = bytearray(plain(1) * 1000)
    run[6 * behind + wrong] ^= 4
    good = 1000 if wrong == 3 else behind  # column 3 is data
    assert plain_end(bytes(run), 0) == 6 * good


@pytest.mark.parametrize("form", [b"%x", b"%X", b"00%x", b"%015x"])
def test_every_size_alone_in_a_run_and_among_others(form: bytes) -> None:
    for size in (*range(1, 300), 4095, 70_000):
        chunk, other = plain(size, form), plain(1 + size % 20)
        for data in (chunk, chunk * 9, chunk + other, other + chunk + other + chunk):
            assert plain_end(data, 0) == len(data)
            assert plain_end(b"1" + data, 1) == len(data) + 1
            assert plain_end(data + chunk[:-1], 0) == len(data)


@pytest.mark.parametrize(
    "data", [b"", b"1", b"0\r\n\r\n", b"000\r\n\r\n", b"1\r\nx\r", b"%016x\r\nx\r\n" % 1]
)
def test_takes_nothing_else(data: bytes) -> None:
    assert plain_end(data, 0) == 0


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
