"""The headers that a probe sends are what their names say."""

from __future__ import annotations

import pytest
from proxyprotocol.result import ProxyResultIPv6
from proxyprotocol.v2 import ProxyProtocolV2

from v6fwd.client_ip.proxy.read import (
    MAX_HEADER,
    ProxyHeaderError,
    read_datagram_header,
    read_header,
)
from v6fwd.model import Protocol
from v6fwd.probe.forms import CLIENT, MAX_V2, Form, Named, padded, v1, v2, variants

NAMED = Named(CLIENT, 80)
TCP = {form.name: form for form in variants(NAMED, Protocol.TCP)}
UDP = {form.name: form for form in variants(NAMED, Protocol.UDP)}


@pytest.mark.parametrize("form", [v1(NAMED), v2(NAMED), TCP["v2-tlvs"], TCP["v2-split"]])
def test_our_own_reader_takes_it(form: Form) -> None:
    header = read_header(form.header)
    assert header is not None
    assert header.source is not None
    assert header.source.host == CLIENT
    assert header.length == len(form.header)


def test_a_datagram_has_its_own() -> None:
    header = read_datagram_header(v2(NAMED, Protocol.UDP).header + b"query")
    assert header.source is not None
    assert header.source.host == CLIENT


@pytest.mark.parametrize("name", ["v2-wrong-crc", "v2-wrong-transport"])
def test_the_wrong_ones_are_wrong(name: str) -> None:
    with pytest.raises(ProxyHeaderError):
        read_header(TCP[name].header)
    with pytest.raises(ProxyHeaderError):
        read_datagram_header(UDP[name].header)


@pytest.mark.parametrize("name", ["v2-local", "v1-unknown"])
def test_some_name_nobody(name: str) -> None:
    header = read_header(TCP[name].header)
    assert header is not None
    assert header.source is None


def test_an_ipv4_client() -> None:
    header = read_header(TCP["v2-ipv4"].header)
    assert header is not None
    assert header.source is not None
    assert header.source.host == TCP["v2-ipv4"].client == "192.0.2.222"


@pytest.mark.parametrize("size", [52, 55, 107, 232, 512, MAX_HEADER])
def test_a_header_of_any_size(size: int) -> None:
    header = padded(NAMED, size)
    assert len(header) == size
    read = read_header(header)
    assert read is not None
    assert read.length == size


def test_the_largest_header_that_there_can_be() -> None:
    """Our own reader takes none as large; a server may."""
    header = padded(NAMED, MAX_V2)
    assert len(header) == MAX_V2 == 16 + 0xFFFF
    result = ProxyProtocolV2().unpack(header)
    assert isinstance(result, ProxyResultIPv6)
    assert str(result.source[0]) == CLIENT


def test_sizes_that_no_tlv_fills() -> None:
    assert len(padded(NAMED, 53)) == 52
