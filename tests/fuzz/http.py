"""Random bytes against the readers of HTTP: `make fuzz SECONDS=60`; not a part of `make test`.

No crash, no hang, cuts change nothing, and h11 agrees with every request that is let through:
it finds exactly those, each with exactly one address, the true one. What is found is left in a
crash-* file, which becomes a sample of tests/unit/http_samples.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["v6fwd"]):
    from tests.corpora.reading import gunicorn_samples, llhttp_samples
    from tests.support.http_reading import FORWARDED, XFF, assert_agreed, feed, maker
    from tests.unit.client_ip.http_samples import BAD_BODIES, BAD_HEADS, GOOD
    from v6fwd.client_ip.http.responses import ResponseStream
    from v6fwd.client_ip.http.syntax import Kind

_WORDS = (
    b"GET HEAD POST OPTIONS CONNECT HTTP/1.1 HTTP/1.0 HTTP/2.0 Host Content-Length Connection"
    b" Transfer-Encoding chunked identity close keep-alive upgrade Upgrade websocket h2c TE"
    b" trailers Expect 100-continue X-Forwarded-For X_Real_IP Forwarded HTTP2-Settings"
)
_MAKERS = [
    (maker(XFF), XFF),
    (maker(FORWARDED), FORWARDED),
    (maker(XFF, keep_underscores=True), XFF),
]


def requests(data: bytes) -> None:
    """The first two bytes choose the mode and the cut, the rest is what a client sends."""
    make, mode = _MAKERS[data[0] % len(_MAKERS)]
    raw = data[2:]
    whole = feed(make, [raw])
    assert_agreed(whole, mode)
    at = data[1] * (len(raw) + 1) // 256
    cuts = [([raw[:at], raw[at:]], data[0] >> 5 & 3)]
    if len(raw) < 300:
        cuts.append(([raw[at : at + 1] for at in range(len(raw))], 0))
    for parts, splice in cuts:
        again = feed(make, parts, splice=splice)
        assert again.refused == whole.refused
        assert again == whole or (whole.refused is not None and again.out.startswith(whole.out))
        assert_agreed(again, mode)


def responses(data: bytes) -> None:
    """The same for what a target sends: it comes out unchanged, however it is cut."""
    raw = data[2:]
    ends = []
    at = data[1] * (len(raw) + 1) // 256
    for parts in ([raw], [raw[:at], raw[at:]]):
        stream = ResponseStream()
        for bits in (0, 2, 4):
            stream.expect(list(Kind)[data[0] >> bits & 3])
        out = b"".join(bytes(piece) for part in parts for piece in stream.receive(part))
        assert raw.startswith(out)
        ends.append((out, stream.error, stream.outstanding, stream.passing, stream.ended()))
    assert ends[0] == ends[1]


def one(data: bytes) -> None:
    """What the fuzzer calls."""
    if len(data) < 3:
        return
    if data[0] & 128 or data[2:].startswith(b"HTTP/1."):
        responses(data)
    else:
        requests(data)


def main() -> None:
    """Start from all samples that there are, with the words of the protocol at hand."""
    samples = [raw for raw, _ in GOOD.values()]
    samples += [raw for raw, *_ in (BAD_HEADS | BAD_BODIES).values()]
    samples += [sample.raw for sample in (*gunicorn_samples(), *llhttp_samples())]
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder, "words")
        words.write_text("".join(f'"{word.decode()}"\n' for word in _WORDS.split()))
        seeds = Path(folder, "seeds")
        seeds.mkdir()
        for number, raw in enumerate(samples):
            seeds.joinpath(str(number)).write_bytes(b"\0\x80" + raw)
        options = [f"-dict={words}", "-timeout=10", "-max_len=4096", *sys.argv[1:], str(seeds)]
        atheris.Setup([sys.argv[0], *options], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
