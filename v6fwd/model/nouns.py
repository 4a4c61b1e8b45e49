"""The nouns (Address, Endpoint, Forward, Limits, Guard, modes) and their text form."""

from __future__ import annotations

import enum
import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple

MAPPED_PREFIX = bytes(10) + b"\xff\xff"
"""RFC 4291, 2.5.5.2: what stands before an IPv4 address in a v4-mapped IPv6 address."""

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class InputError(ValueError):
    """Something that a user typed cannot be used; the text is one line for that user."""


class ClientIP(enum.StrEnum):
    """How the target learns who the client is."""

    NONE = "none"
    PROXY_V1 = "proxy-v1"
    PROXY_V2 = "proxy-v2"
    X_FORWARDED_FOR = "x-forwarded-for"
    FORWARDED = "forwarded"
    TRANSPARENT = "transparent"

    @property
    def is_http(self) -> bool:
        """Whether the target learns it from a field in each HTTP request."""
        return self in (ClientIP.X_FORWARDED_FOR, ClientIP.FORWARDED)


class OnOpaque(enum.StrEnum):
    """What happens to a connection that is not HTTP/1 where HTTP is read: TLS, HTTP/2, CONNECT."""

    REFUSE = "refuse"
    PASS = "pass"  # its bytes go through as they are, and the target learns no address


class TransparentFallback(enum.StrEnum):
    """What becomes of a client that a transparent forward cannot show to its target."""

    REFUSE = "refuse"
    PROXY_V2 = "proxy-v2"
    NONE = "none"


class Protocol(enum.StrEnum):
    """What a forward carries."""

    TCP = "tcp"
    UDP = "udp"


class UdpProxy(enum.StrEnum):
    """Which datagrams of a UDP session a PROXY header stands in front of."""

    EVERY = "every"  # as the specification of 2026-04-27 has it, and every DNS server tried
    FIRST = "first"  # nginx 1.31, frp, sozu


class Address(NamedTuple):
    """An IP address and port, as sent in headers and shown in logs.

    `packed` has 4 or 16 bytes in network order. A v4-mapped address never gets in here
    through `Address.of`: such a client is an IPv4 client (design: dual-stack listeners).
    """

    packed: bytes
    port: int

    @classmethod
    def of(cls, packed: bytes, port: int) -> Address:
        """Make one from network bytes; a v4-mapped IPv6 address becomes the IPv4 one."""
        if packed.startswith(MAPPED_PREFIX) and len(packed) == 16:
            return cls(packed[12:], port)
        return cls(packed, port)

    @property
    def host(self) -> str:
        """The address alone: RFC 5952 for IPv6, without brackets; dotted for IPv4."""
        return ip_text(self.packed)

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


@functools.lru_cache(maxsize=4096)  # 5 us to make, and a header in text needs two
def ip_text(packed: bytes) -> str:
    """The RFC 5952 text of 4 or 16 network bytes.

    `str()` writes the tail of a v4-mapped address in hexadecimal up to Python 3.12;
    RFC 5952, section 5, wants it dotted.
    """
    if len(packed) == 16 and packed.startswith(MAPPED_PREFIX):
        return f"::ffff:{ipaddress.IPv4Address(packed[12:])}"
    return str(ipaddress.ip_address(packed))


def bracketed(host: str) -> str:
    """The host as it stands before `:port`."""
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a forward: an IP address or host name with a port, or a unix socket.

    `host` is without brackets and may carry a zone (`fe80::1%eth0`); `path` is set for a
    unix socket only, and then host is "" and port 0. TCP goes without saying in the text form.
    """

    host: str
    port: int
    path: str = ""
    protocol: Protocol = Protocol.TCP

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        slash = "" if self.protocol is Protocol.TCP else f"/{self.protocol}"
        return f"{bracketed(self.host)}:{self.port}{slash}"

    @property
    def is_name(self) -> bool:
        """Whether a resolver must be asked for the address."""
        return not self.path and not is_ip(self.host)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a relay. Times in seconds; 0 turns a limit off where the text says so."""

    connect_timeout: float = 5.0
    """Until a target must have answered. 5 s spans the kernel's second SYN retry (1 s, 3 s)."""
    drain_timeout: float = 30.0
    """For flows to finish after SIGTERM; 30 s is what Kubernetes grants a pod too."""
    interrupt_timeout: float = 1.0
    """The same after SIGINT: dockerd, and whoever pressed ^C, waits for the exit."""
    idle_timeout: float = 0.0
    """Without a byte in either direction; 0: never, as docker-proxy."""
    header_timeout: float = 3.0
    """For an incoming PROXY header; its specification (section 2) asks for at least 3 s."""
    request_timeout: float = 20.0
    """For the whole head of an HTTP request; 20 s as Apache's RequestReadTimeout starts with."""
    udp_timeout: float = 90.0
    """For a UDP session without a datagram in either direction; 90 s as docker-proxy."""
    max_head: int = 16 * 1024
    """Bytes of the head of an HTTP request, 16 KiB to 256 KiB; HAProxy's buffer has 16 KiB."""
    max_flows: int = 0
    """TCP flows at once in this process, and as many UDP sessions; 0: as many as there are
    descriptors for."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may come in, and how often. A client is one IPv4 address or one IPv6 network."""

    allow: tuple[IPNetwork, ...] = ()
    """Nobody else may, where there are any."""
    deny: tuple[IPNetwork, ...] = ()
    """These may not, even if `allow` has them."""
    client_flows: int = 0
    """Flows at once per client, over all workers; 0: no limit."""
    client_rate: float = 0.0
    """New flows per second per client, a second's worth (and at least one) at once; 0: no limit."""
    client_prefix: int = 64
    """Bits that make an IPv6 client, 1 to 128: RFC 4291, 2.5.1 gives every link a /64, so whoever
    has one address there has them all."""

    @property
    def counts_clients(self) -> bool:
        """Whether anything must be remembered of a client."""
        return bool(self.client_flows or self.client_rate)


PSEUDO_WIDTHS = (64, 128)
"""Bits that a pseudo IPv4 address may stand for: a /64, as one household or host has, or all."""


NO_NETNS = "none"


@dataclass(frozen=True, slots=True)
class Transparent:
    """How a forward in mode `transparent` does it; of no meaning in other modes."""

    netns: str = ""
    """The target's network namespace: a PATH, a PID, a NAME of ip-netns(8), or the ADDRESS that
    it has; "": the one that has the target's address, if there is one on this host; NO_NETNS: the
    target is reached over the network, and IPv6 clients come from pseudo IPv4 addresses."""
    fallback: TransparentFallback = TransparentFallback.REFUSE
    pseudo_bits: int = 64
    """What a pseudo IPv4 address stands for: a /64, or with 128 a single address."""
    pseudo_store: str = "/var/lib/v6fwd/pseudo-ipv4.sqlite"
    """The file in which it is written down which."""


@dataclass(frozen=True, slots=True)
class Forward:
    """One listening endpoint and the target behind it: Docker's "published port"."""

    listen: Endpoint
    target: Endpoint
    client_ip: ClientIP = ClientIP.NONE
    accept_proxy: tuple[IPNetwork, ...] = ()
    udp_proxy: UdpProxy = UdpProxy.EVERY
    pass_tlvs: int = 0
    """Bytes that a PROXY v2 header may have with the TLVs of an accepted one; 0: without them."""
    trust_forwarded: tuple[IPNetwork, ...] = ()
    keep_underscores: bool = False
    on_opaque: OnOpaque = OnOpaque.REFUSE
    limits: Limits = Limits()
    guard: Guard = Guard()
    transparent: Transparent = Transparent()

    def __str__(self) -> str:
        return f"{self.listen} -> {self.target}"

    @property
    def protocol(self) -> Protocol:
        """What it carries; both ends carry the same."""
        return self.listen.protocol


_ZONE_RE = re.compile(r"[!-$&-.0-~]{1,15}")  # an interface's number or name, below IFNAMSIZ


@functools.lru_cache(maxsize=1024)  # many forwards have few hosts
def is_ip(host: str) -> bool:
    """Whether the text is an IP address, with or without a zone."""
    address, percent, zone = host.partition("%")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return not percent or (":" in address and _ZONE_RE.fullmatch(zone) is not None)
