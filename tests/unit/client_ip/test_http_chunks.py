"""The reader of chunks by itself; as part of messages it is in the tests of those."""

from __future__ import annotations

import pytest

from v6fwd.client_ip.http.chunks import LOOSE, MAX_CHUNK_LINE, STRICT, ChunkReader, Grammar
from v6fwd.client_ip.http.syntax import HttpRefused


def test_stops_behind_the_body() -> None:
    data = b"xx5\r\nhello\r\n0\r\n\r\nGET /"
    reader = ChunkReader()
    assert reader.follow(data, 2) == len(data) - 5
    assert reader.done
    assert reader.error is None


def test_tells_how_much_of_a_chunk_is_left() -> None:
    reader = ChunkReader()
    assert reader.follow(b"ff\r\nabc", 0) == 7
    assert reader.left == 0xFF - 3
    reader.skip(0xFF - 3)
    assert reader.left == 0
    assert reader.follow(b"\r", 0) == 0
    assert reader.follow(b"\r\n", 0) == 2
    assert not reader.done


def test_the_largest_chunk() -> None:
    reader = ChunkReader()
    assert reader.follow(b"fffffffffffffff\r\n", 0) == 17
    assert reader.left == 16**15 - 1


def test_what_is_not_whole_is_to_be_given_again() -> None:
    reader = ChunkReader()
    assert reader.follow(b"1\r\nx\r\n5;a", 0) == 6
    assert reader.follow(b"5;a\r\n", 0) == 5
    assert reader.left == 5


@pytest.mark.parametrize("trailers", [b"", b"A: b\r\n", b"A: b\r\nC:\r\n"])
def test_the_end_counts_as_one(trailers: bytes) -> None:
    """Not even the size of the last chunk is let through before its trailers are judged."""
    end = b"0;a\r\n" + trailers + b"\r\n"
    for at in range(1, len(end)):
        reader = ChunkReader()
        assert reader.follow(end[:at], 0) == 0
        assert reader.cuts == []
        assert not reader.done
        assert reader.follow(end, 0) == len(end)
        assert reader.done


def test_cuts_leave_extensions_and_trailers_out() -> None:
    data = b"5;a\r\nhello\r\n1;b=c\r\nx\r\n0;d\r\nE: f\r\nG: h\r\n\r\n"
    reader = ChunkReader()
    reader.follow(data, 0)
    left = bytearray(data)
    for start, end, _ in reversed(reader.cuts):
        del left[start:end]
    assert bytes(left) == b"5\r\nhello\r\n1\r\nx\r\n0\r\n\r\n"


@pytest.mark.parametrize(("length", "fits"), [(MAX_CHUNK_LINE, True), (MAX_CHUNK_LINE + 1, False)])
def test_the_longest_line(length: int, fits: bool) -> None:
    line = b"1;" + b"a" * (length - 4) + b"\r\n"
    assert len(line) == length
    whole = ChunkReader()
    assert whole.follow(line, 0) == (length if fits else 0)
    assert whole.error == (None if fits else HttpRefused(400, "malformed chunk"))


@pytest.mark.parametrize("begun", [b"g", b"1 ", b"1;\0", b"1\rx", b"\r", b"\n", b"1\r\r", b"0\n"])
def test_a_line_is_refused_as_soon_as_it_is_wrong(begun: bytes) -> None:
    reader = ChunkReader()
    assert reader.follow(begun, 0) == 0
    assert reader.error == HttpRefused(400, "malformed chunk")


@pytest.mark.parametrize("begun", [b"1", b"1\r", b"1;", b"1;a=", b"1;a\r", b"0", b"0\r\n\r"])
def test_a_line_is_held_while_it_can_be_right(begun: bytes) -> None:
    reader = ChunkReader()
    assert reader.follow(begun, 0) == 0
    assert reader.error is None


SMALL = [b"1\r\nx\r\n", b"0A\r\n0123456789\r\n", b"000f\r\n" + b"\r" * 15 + b"\r\n"]
SMALL += [b"10\r\n" + b"\n" * 16 + b"\r\n", b"7F\r\n" + b"1\r\n" * 42 + b"x\r\n"]


@pytest.mark.parametrize("grammar", [STRICT, LOOSE])
def test_small_chunks_are_taken_many_at_a_time(grammar: Grammar) -> None:
    calls = []

    def late() -> bool:
        calls.append(1)
        return True

    data = b"".join(SMALL) * 2000
    reader = ChunkReader(grammar)
    assert reader.follow(data, 0, late) == len(data)
    assert (reader.left, reader.cuts, reader.error, calls) == (0, [], None, [])


@pytest.mark.parametrize("bad", [b"1\r\nxx\r\n", b"2\r\nx\r\n", b"1\r\nx\n\n", b"1\n\rx\r\n"])
def test_a_bad_one_among_small_ones(bad: bytes) -> None:
    good = b"".join(SMALL)
    reader = ChunkReader()
    at = reader.follow(good + bad + good, 0)
    assert reader.error == HttpRefused(400, "malformed chunk")
    assert len(good) <= at <= len(good) + len(bad)


def test_all_sizes_are_taken_the_same_way() -> None:
    for size in range(1, 300):
        for form in (b"%x", b"%X", b"0%x"):
            chunk = form % size + b"\r\n" + b"z" * size + b"\r\n"
            whole = ChunkReader()
            assert whole.follow(chunk * 3, 0) == 3 * len(chunk)
            single = ChunkReader()
            at = 0
            for end in range(1, len(chunk) + 1):
                at = single.follow(chunk[:end], at)
            assert (at, single.left, single.error) == (len(chunk), 0, None)
            short = ChunkReader()
            short.follow(form % size + b"\r\n" + b"z" * (size - 1) + b"\r\n1", 0)
            assert short.error is not None
