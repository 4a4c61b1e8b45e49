"""The nouns (Address, Endpoint, Forward, Limits, Guard, modes), their parsing and text form.

Nothing here does I/O. What a user types is parsed once, here, and every error is an
`InputError` whose text names what was wrong and what would be right.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import re
from collections.abc import Sequence
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


# ---- what a user types ---------------------------------------------------------------------

_HOST_PORT_RE = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:]*)):(?P<ports>[^:]*)")
_NAME_RE = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_NUMBER_RE = re.compile(r"[0-9]+(\.[0-9]+)?")
MAX_SECONDS = 366 * 86_400.0
_UNIX_PATH_MAX = 107  # sun_path holds 108 bytes with its final NUL, unix(7)


def parse_listen(text: str) -> list[Endpoint]:
    """LISTEN: `[::]:8080`, `0.0.0.0:8080`, `8080` (= `[::]:8080`), `[::]:5000-5009`.

    Each may end in `/tcp`, `/udp` or `/tcp+udp`; without it is TCP. Raises InputError. A range
    gives one Endpoint a port, both protocols give two.
    """
    rest, protocols = _protocols(text)
    if rest.replace("-", "").isdecimal():
        rest = f"[::]:{rest}"
    host, ports = _host_and_ports(text, rest, "[::]:8080, 0.0.0.0:8080 or 8080")
    if not is_ip(host):
        raise InputError(f"{text!r}: {host!r} is not an IP address; write [::] to listen on all")
    return _endpoints(host, ports, protocols)


def parse_target(text: str, protocol: Protocol | None = None) -> list[Endpoint]:
    """TARGET: `172.17.0.2:80`, `host:80`, `[2001:db8::5]:80`, `unix:/run/app.sock`, or a range.

    `protocol` is LISTEN's, which goes for TARGET as well; naming another one is an error.
    Raises InputError. A range gives one Endpoint a port.
    """
    if text.startswith("unix:"):
        if protocol is Protocol.UDP:
            raise InputError(f"{text!r}: a unix socket cannot be the target of {protocol}")
        return [_unix_endpoint(text)]
    rest, protocols = _protocols(text)
    host, ports = _host_and_ports(text, rest, "172.17.0.2:80, name:80 or unix:/run/app.sock")
    if not is_ip(host) and not _is_host_name(host):
        raise InputError(f"{text!r}: {host!r} is neither an IP address nor a host name")
    if protocol is not None and protocols and protocol not in protocols:
        raise InputError(f"{text!r}: LISTEN is for {protocol}; both ends need the same protocol")
    return _endpoints(host, ports, (protocol,) if protocol else protocols)


def pair_up(listen: str, target: str) -> list[tuple[Endpoint, Endpoint]]:
    """One LISTEN and its TARGET, port by port; ranges must be equally long. Raises InputError."""
    listeners = parse_listen(listen)
    protocols = sorted({endpoint.protocol for endpoint in listeners})
    targets = [endpoint for protocol in protocols for endpoint in parse_target(target, protocol)]
    if len(listeners) != len(targets):
        count = len(protocols)
        raise InputError(
            f"{listen!r} has {_ports(len(listeners) // count)} and"
            f" {target!r} has {_ports(len(targets) // count)}; both need as many"
        )
    return list(zip(listeners, targets, strict=True))


def parse_networks(text: str) -> tuple[IPNetwork, ...]:
    """`CIDR[,CIDR]`: networks or single addresses. Raises InputError."""
    return tuple(_network(part.strip()) for part in text.split(","))


def parse_seconds(text: str, *, zero: bool = False) -> float:
    """A time limit of 0.001 s to 366 days; 0 only where that means something. Raises InputError."""
    number = _number(text)
    if 0.001 <= number <= MAX_SECONDS or (zero and number == 0):
        return number
    least = "0" if zero else "0.001"
    raise InputError(f"{text!r} is not a time; write {least} to {MAX_SECONDS:.0f} seconds")


def parse_rate(text: str) -> float:
    """Flows per second, 0.001 to 1,000,000, or 0. Raises InputError."""
    number = _number(text)
    if number == 0 or 0.001 <= number <= 1e6:
        return number
    raise InputError(f"{text!r} is not a rate; write 0.001 to 1000000 flows per second, or 0")


def _number(text: str) -> float:
    return float(text) if _NUMBER_RE.fullmatch(text) else -1.0


def refuse_twins(forwards: Sequence[Forward]) -> None:
    """Raise InputError if two forwards listen on the same endpoint."""
    seen: dict[Endpoint, Forward] = {}
    for forward in forwards:
        twin = seen.setdefault(forward.listen, forward)
        if twin is not forward:
            raise InputError(
                f"{forward.listen} is given twice, for {twin.target} and for {forward.target}"
            )


def refuse_misfits(forwards: Sequence[Forward]) -> None:
    """Raise InputError if a forward's client-ip mode does not exist for its protocol."""
    for forward in forwards:
        if forward.protocol is Protocol.UDP and forward.client_ip is ClientIP.PROXY_V1:
            raise InputError(
                f"{forward.listen}: proxy-v1 is for TCP alone (PROXY protocol, section 2.1);"
                " for UDP take proxy-v2"
            )
        if forward.protocol is Protocol.UDP and forward.client_ip.is_http:
            raise InputError(
                f"{forward.listen}: {forward.client_ip} is for HTTP over TCP; for UDP take proxy-v2"
            )
        if forward.trust_forwarded and not forward.client_ip.is_http:
            raise InputError(
                f"{forward.listen}: trust-forwarded goes with x-forwarded-for or forwarded,"
                f" not with {forward.client_ip}"
            )
        _refuse_opaque(forward)


def _refuse_opaque(forward: Forward) -> None:
    """The same for mode `transparent`."""
    target, netns = forward.target, forward.transparent.netns
    if forward.client_ip is not ClientIP.TRANSPARENT:
        if netns:
            raise InputError(
                f"{forward.listen}: target-netns goes with transparent, not with"
                f" {forward.client_ip}"
            )
    elif target.path:
        raise InputError(f"{target}: a unix socket shows no client address; transparent needs IP")
    elif netns not in ("", NO_NETNS) and (target.is_name or "%" in target.host):
        raise InputError(
            f"{target}: with target-netns write the container's own address, as in 172.17.0.2:80"
        )


def _ports(count: int) -> str:
    return f"{count} port{'s' if count > 1 else ''}"


def _protocols(text: str) -> tuple[str, tuple[Protocol, ...]]:
    """The text without its protocols, and them: in the order of Protocol, none if none is named."""
    rest, slash, names = text.rpartition("/")
    if not slash:
        return text, ()
    named = names.split("+")
    for name in named:
        if name not in tuple(Protocol):
            raise InputError(
                f"{text!r}: protocol {name!r} cannot be forwarded; only tcp and udp can"
            )
    if len(set(named)) < len(named):
        raise InputError(f"{text!r}: a protocol is named twice")
    return rest, tuple(protocol for protocol in Protocol if protocol in named)


def _endpoints(host: str, ports: range, protocols: Sequence[Protocol]) -> list[Endpoint]:
    """All ports for one protocol, then all for the other; TCP where none is named."""
    return [
        Endpoint(host, port, protocol=protocol)
        for protocol in protocols or (Protocol.TCP,)
        for port in ports
    ]


def _host_and_ports(text: str, rest: str, example: str) -> tuple[str, range]:
    match = _HOST_PORT_RE.fullmatch(rest)
    if match is None:
        hint = "an IPv6 address needs brackets, " if rest.count(":") > 1 else ""
        raise InputError(f"{text!r} is not an address and port: {hint}write {example}")
    host = match["v6"] if match["v6"] is not None else match["host"]
    if match["v6"] is not None and not (is_ip(host) and ":" in host):
        raise InputError(f"{text!r}: {host!r} is not an IPv6 address")
    if not host:
        raise InputError(f"{text!r} names no address: write {example}")
    return _one_spelling(host), _port_range(text, match["ports"])


@functools.lru_cache(maxsize=1024)
def _one_spelling(host: str) -> str:
    """Addresses as RFC 5952 writes them, so that twins are seen; names as they are."""
    address, percent, zone = host.partition("%")
    return (
        f"{ip_text(ipaddress.ip_address(address).packed)}{percent}{zone}" if is_ip(host) else host
    )


def _port_range(text: str, ports: str) -> range:
    first, dash, last = ports.partition("-")
    low = _port(text, first)
    high = _port(text, last) if dash else low
    if high < low:
        raise InputError(f"{text!r}: the range {ports} runs backwards; write {high}-{low}")
    return range(low, high + 1)


def _port(text: str, digits: str) -> int:
    if digits.isascii() and digits.isdecimal() and 1 <= len(digits) <= 5:
        port = int(digits)
        if 1 <= port <= 65535:
            return port
    raise InputError(f"{text!r}: {digits!r} is not a port; a port is a number from 1 to 65535")


def _is_host_name(host: str) -> bool:
    # A last label of digits (300.1.1.1, 10.0.0) is a mistyped IPv4 address: RFC 3696, section 2.
    last = host.rstrip(".").rpartition(".")[2]
    return len(host) <= 253 and _NAME_RE.fullmatch(host) is not None and not last.isdecimal()


def _unix_endpoint(text: str) -> Endpoint:
    path = text.removeprefix("unix:")
    if not path.startswith("/"):
        raise InputError(f"{text!r}: the path must start with /, as in unix:/run/app.sock")
    if not path.isprintable():
        raise InputError(f"{text!r}: the path holds what cannot be printed")
    if len(path.encode()) > _UNIX_PATH_MAX:
        raise InputError(f"{text!r}: the path is longer than {_UNIX_PATH_MAX} bytes")
    return Endpoint("", 0, path)


def _network(text: str) -> IPNetwork:
    try:
        if "%" in text:
            raise ValueError(text)
        network = ipaddress.ip_network(text)
    except ValueError:
        raise InputError(f"{text!r} is not a network: {_network_hint(text)}") from None
    if network.version == 6 and network.prefixlen >= 96:
        packed = network.network_address.packed
        if packed.startswith(MAPPED_PREFIX):
            return ipaddress.IPv4Network((packed[12:], network.prefixlen - 96))
    return network


def _network_hint(text: str) -> str:
    if "%" in text:
        return "it has a zone, which no packet carries"
    try:
        return f"it has host bits set; write {ipaddress.ip_network(text, strict=False)}"
    except ValueError:
        return "write a CIDR such as 10.0.0.0/8 or 2001:db8::/32"
