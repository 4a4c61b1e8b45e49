"""The request files of gunicorn and llhttp, as a second opinion on what is good and bad.

A bad sample must not come out as a whole request, a good one must come out as all of its
requests; h11 counts. Where we differ, the reason stands here.
"""

from __future__ import annotations

import os

import pytest

from tests.corpora.reading import FOLDER, Sample, gunicorn_samples, llhttp_samples
from tests.support.http_reading import assert_agreed, feed, maker

SAMPLES = [*gunicorn_samples(), *llhttp_samples()]

_LIMITS = "its limits were set lower for the test than Apache's, which are ours"
_TRAILERS = "all trailers are dropped, so none can replace a field"
_BLANK = "it allows one empty line before a request; a few are harmless"
_SINGLETON = "which fields may stand once is the target's business, but for those that frame"
_FRAGMENT = "a fragment is not sent (RFC 9110, 4.2.5), and a proxy in front was fooled by one"
_CODINGS = "codings other than chunked alone: servers differ about them"
_CONNECT = "CONNECT opens a way that nobody reads; only with on-opaque pass"
_SCHEME = "requests for https do not come in the clear"
_USER = "user names in a target are no part of a Host that could be compared"
_HOST = "the Host that the test adds is not the one in the target"
_STAR = "only OPTIONS asks for the whole server (RFC 9112, 3.2.4)"
_ZEROS = "leading zeros: who takes them for octal reads another length"
_METHOD = "any token is a method (RFC 9110, 9.1); its list is closed"
_PROTOCOL = "no HTTP"

LAXER = {
    "invalid/006": _LIMITS,
    "invalid/007": _LIMITS,
    "invalid/008": _LIMITS,
    "invalid/017": _LIMITS,
    "invalid/041": _SINGLETON,
    "invalid/rfc9110_trailer_forbidden_cl_01": _TRAILERS,
    "invalid/rfc9110_trailer_forbidden_host_01": _TRAILERS,
    "invalid/rfc9110_trailer_forbidden_te_01": _TRAILERS,
    "invalid/rfc9112_leading_crlf_02": _BLANK,
    "invalid/4 HTTP protocol and ANNOUNCE method": _METHOD,
    "invalid/14 Invalid method": _METHOD,
}
"""Bad samples that are let through."""

STRICTER = {
    "valid/005": _FRAGMENT,
    "valid/025": _CODINGS,
    "valid/025_line": _CODINGS,
    "valid/029": _CODINGS,
    "valid/030": _CODINGS,
    "valid/rfc9112_smuggle_gzip_chunked_01": _CODINGS,
    "valid/rfc9112_smuggle_te_identity_chunked_01": _CODINGS,
    "valid/rfc9112_target_absolute_https_01": _SCHEME,
    "valid/rfc9112_target_absolute_userinfo_01": _USER,
    "valid/rfc9112_target_authority_connect_01": _CONNECT,
    "valid/rfc9112_target_authority_ipv6_01": _CONNECT,
    "content-length/1 `Content-Length` with zeroes": _ZEROS,
    "content-length/2 `Content-Length` with follow-up headers": _ZEROS,
    "method/2 CONNECT request": _CONNECT,
    "method/3 CONNECT request with CAPS": _CONNECT,
    "method/4 CONNECT with body": _CONNECT,
    "method/5 M-SEARCH request": _STAR,
    "method/12 SOURCE request with ICE": _PROTOCOL,
    "method/13 OPTIONS request with RTSP": _PROTOCOL,
    "method/14 ANNOUNCE request with RTSP": _PROTOCOL,
    "sample/10 No HTTP version": _PROTOCOL,
    "transfer-encoding/20 POST with `chunked` as last transfer-encoding": _FRAGMENT,
    "transfer-encoding/21 POST with `chunked` as last transfer-encoding (multiple headers)": (
        _FRAGMENT
    ),
    "uri/3 Host terminated by a query string": _HOST,
    "uri/4 `host:port` terminated by a query string": _HOST,
    "uri/6 `host:port` terminated by a space": _HOST,
    "uri/8 Fragment in URI": _FRAGMENT,
    "uri/9 Underscore in hostname": _CONNECT,
    "uri/10 `host:port` and basic auth": _USER,
}
"""Good samples that are refused."""

NOT_WHOLE = {
    "valid/099": "its body is shorter than its Content-Length",
    "content-length/16 Content-Length reset when no body is received": (
        "the reader is told there to skip bodies; here the next head is the body"
    ),
}
"""Good samples whose last request is not all there."""

samples = pytest.mark.parametrize("sample", SAMPLES, ids=[sample.name for sample in SAMPLES])


def test_the_samples_are_here() -> None:
    if not FOLDER.exists() and not os.environ.get("CI"):
        pytest.skip("not fetched; `make test` does it")
    assert len(SAMPLES) >= 230
    assert sum(not sample.valid for sample in SAMPLES) >= 110
    names = [sample.name for sample in SAMPLES]
    assert len(names) == len(set(names))
    assert {*LAXER, *STRICTER, *NOT_WHOLE} <= set(names)


@samples
def test_samples(sample: Sample) -> None:
    outcome = feed(maker(), [sample.raw])
    whole = sum(request.whole for request in assert_agreed(outcome))
    if sample.name in LAXER:
        assert whole > sample.whole
        assert outcome.refused is None
    elif sample.name in STRICTER:
        assert whole < sample.whole
        assert outcome.refused is not None
    elif sample.name in NOT_WHOLE:
        assert whole < sample.whole
    elif sample.valid:
        assert whole == sample.whole
        assert outcome.refused is None
    else:
        assert whole <= sample.whole


@samples
def test_cuts_change_nothing(sample: Sample) -> None:
    whole = feed(maker(), [sample.raw])
    again = feed(maker(), [sample.raw[at : at + 1] for at in range(len(sample.raw))])
    assert again.refused == whole.refused
    # a head that came before its bad chunk is out; together with it nothing is
    assert again == whole or (whole.refused is not None and again.out.startswith(whole.out))
