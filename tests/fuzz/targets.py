"""What is fuzzed: each reader of foreign bytes, and what has to hold for any bytes.

A target is called with bytes and raises where something does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.fuzz.machine import MACHINE_TARGETS
from tests.support.http_reading import FORWARDED, XFF, assert_agreed, feed, hurry, maker
from tests.support.scanned_alike import assert_request_alike, assert_response_alike
from tests.support.usual_heads import Verdicts, assert_read_alike
from v6fwd.client_ip.budget import UNBOUNDED, TimeBudget
from v6fwd.client_ip.http.chunk_runs import plain_end_by_pattern, scanner
from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.client_ip.http.syntax import Kind
from v6fwd.client_ip.proxy.read import (
    Header,
    ProxyHeaderError,
    read_datagram_header,
    read_header,
)
from v6fwd.client_ip.proxy.tlvs import add_tlvs, each_tlv
from v6fwd.client_ip.proxy.write import write_v1, write_v2, write_v2_dgram
from v6fwd.model import ClientIP

Target = Callable[[bytes], None]

_MODES: tuple[tuple[ClientIP, dict[str, bool]], ...] = (
    (XFF, {}),
    (FORWARDED, {}),
    (XFF, {"keep_underscores": True}),
)


def _cuts(raw: bytes, at: int) -> Iterable[list[bytes]]:
    yield [raw[:at], raw[at:]]
    if len(raw) < 300:
        yield [raw[at : at + 1] for at in range(len(raw))]


def requests(data: bytes) -> None:
    """h11 finds exactly what was let through, with the true address; cuts change nothing.

    The first two bytes choose the mode and the cut.
    """
    if len(data) < 3:
        return
    mode, rules = _MODES[data[0] % len(_MODES)]
    raw = data[2:]
    make = maker(mode, **rules)
    whole = feed(make, [raw])
    assert_agreed(whole, mode)
    at = data[1] * (len(raw) + 1) // 256
    ways = [feed(make, parts, splice=data[0] >> 5 & 3) for parts in _cuts(raw, at)]
    for again in (*ways, feed(maker(mode, hurried=True, **rules), [raw])):
        assert again.refused == whole.refused
        assert again == whole or (whole.refused is not None and again.out.startswith(whole.out))
        assert_agreed(again, mode)


_verdicts: Verdicts = {}


def heads(data: bytes) -> None:
    """A usual head is read as the two parsers read it; they differ, or not, by shape."""
    if len(_verdicts) > 100_000:
        _verdicts.clear()
    assert_read_alike(data, _verdicts)


def usual(data: bytes) -> None:
    """The native scanner and the patterns read heads alike, wherever the bytes begin and end.

    The first two bytes choose the cut.
    """
    if len(data) < 3:
        return
    raw = data[2:]
    at = int.from_bytes(data[:2], "big") % (len(raw) + 1)
    for part in (raw, raw[:at], raw[at:]):
        assert_request_alike(part)
        assert_response_alike(part)


def _answers(
    kinds: list[Kind], parts: Iterable[bytes], budget: TimeBudget = UNBOUNDED
) -> tuple[bytes, ResponseStream]:
    stream = ResponseStream(budget)
    for kind in kinds:
        stream.expect(kind)
    out = b""
    for part in parts:
        out += b"".join(map(bytes, stream.receive(part)))
        while stream.more:
            out += b"".join(map(bytes, stream.receive(b"")))
    return out, stream


def _seen(stream: ResponseStream) -> tuple[object, ...]:
    seen = stream.error, stream.outstanding, stream.passing, stream.is_spent
    return (*seen, stream.switched, stream.began, stream.ended())


def answers(data: bytes) -> None:
    """What comes out is by the letter and stays so; cuts change nothing.

    The first two bytes choose what was asked and the cut.
    """
    if len(data) < 3:
        return
    raw = data[2:]
    kinds = [list(Kind)[data[0] >> bits & 3] for bits in (0, 2, 4)]
    out, whole = _answers(kinds, [raw])
    seen = _seen(whole)
    at = data[1] * (len(raw) + 1) // 256
    ways = [_answers(kinds, parts) for parts in _cuts(raw, at)]
    for again, stream in (*ways, _answers(kinds, [raw], hurry())):
        assert again == out
        assert _seen(stream) == seen
    clean, stream = _answers(kinds, [out])
    assert clean == out
    assert not stream.error
    stream.ended()
    if not whole.is_spent:  # a stricter reader does not know of the doubt
        assert (stream.outstanding, stream.passing) == (whole.outstanding, whole.passing)


def chunks(data: bytes) -> None:
    """Both scanners end a run at the same place, wherever the bytes begin and end.

    The first two bytes choose the cut.
    """
    if len(data) < 3:
        return
    raw = data[2:]
    native, at = scanner(), int.from_bytes(data[:2], "big") % (len(raw) + 1)
    for part, start in ((raw, 0), (raw, at), (raw[:at], 0)):
        end = plain_end_by_pattern(part, start)
        assert native(part, start) == end
        assert plain_end_by_pattern(part[:end], start) == native(part[:end], start) == end


def _outcome(read: Callable[[bytes], Header | None], data: bytes) -> Header | str | None:
    try:
        return read(data)
    except ProxyHeaderError as error:
        text = str(error)
        assert text
        assert text.isprintable()
        return text


def proxy_stream(data: bytes) -> None:
    """A verdict, once there is one, stays whatever follows; what was read can be written."""
    verdict: Header | str | None = None
    step = max(1, len(data) // 200)
    for end in (*range(0, len(data), step), len(data)):
        now = _outcome(read_header, data[:end])
        if isinstance(verdict, Header):
            assert now == verdict
        elif verdict is not None:
            assert isinstance(now, str)
        verdict = now
    if isinstance(verdict, Header):
        assert 0 < verdict.length <= len(data)
        _written_and_read(verdict, read_header, write_v2)
        if verdict.source is not None and verdict.destination is not None:
            line = write_v1(verdict.source, verdict.destination)
            again = read_header(line)
            assert again is not None
            assert again.source == verdict.source


def proxy_datagram(data: bytes) -> None:
    """The payload is all that follows the header, and does not change it."""
    verdict = _outcome(read_datagram_header, data)
    if isinstance(verdict, Header):
        assert read_datagram_header(data[: verdict.length]) == verdict
        assert read_datagram_header(data + b"more") == verdict
        _written_and_read(verdict, read_datagram_header, write_v2_dgram)


def _written_and_read(
    header: Header,
    read: Callable[[bytes], Header | None],
    write: Callable[..., bytes],
) -> None:
    """With its TLVs: as many as have room."""
    if header.source is None or header.destination is None:
        return
    plain = write(header.source, header.destination)
    for largest in (0, 100, 0xFFFF):
        written = add_tlvs(plain, header.tlvs, largest)
        again = read(written)
        assert again is not None
        assert again.source == header.source
        assert again.length == len(written) <= max(len(plain), largest)
        assert again.is_tls <= header.is_tls
        if largest == 0xFFFF and len(header.tlvs) < 60_000:
            assert len([*each_tlv(again.tlvs)]) == len([*each_tlv(header.tlvs)])


TARGETS: dict[str, Target] = {
    **MACHINE_TARGETS,
    "requests": requests,
    "heads": heads,
    "usual": usual,
    "answers": answers,
    "chunks": chunks,
    "proxy-stream": proxy_stream,
    "proxy-datagram": proxy_datagram,
}
