"""The data types: Address, Endpoint, Forward, Limits, Guard, modes; and their text form."""

from __future__ import annotations

import enum
import functools
import ipaddress

from v6fwd.model.lean import NamedTuple, dataclass
from v6fwd.model.patterns import Lazy

MAPPED_PREFIX = bytes(10) + b"\xff\xff"
"""The prefix of a v4-mapped IPv6 address: RFC 4291, 2.5.5.2."""

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class InputError(ValueError):
    """User input is invalid; the text is one line for that user."""


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
        """Whether the address is in a field of each HTTP request."""
        return self in (ClientIP.X_FORWARDED_FOR, ClientIP.FORWARDED)


class RelayEngine(enum.StrEnum):
    """What moves the bytes of plain TCP flows."""

    AUTO = "auto"
    RING = "ring"
    EPOLL = "epoll"


class OnOpaque(enum.StrEnum):
    """What an HTTP mode does with a connection that is not HTTP/1: TLS, HTTP/2, CONNECT."""

    REFUSE = "refuse"
    PASS = "pass"  # relay its bytes unchanged; the target learns no address


class TransparentFallback(enum.StrEnum):
    """What a transparent forward does with a client whose address cannot be preserved."""

    REFUSE = "refuse"
    PROXY_V2 = "proxy-v2"
    NONE = "none"


class Protocol(enum.StrEnum):
    """The transport protocol of a forward."""

    TCP = "tcp"
    UDP = "udp"


class UdpProxy(enum.StrEnum):
    """Which datagrams of a UDP session get a PROXY header."""

    EVERY = "every"  # specification of 2026-04-27, and every DNS server tried
    FIRST = "first"  # nginx 1.31, frp, sozu


class Address(NamedTuple):
    """An IP address and port, as sent in headers and shown in logs.

    `packed` has 4 or 16 bytes in network order. `Address.of` unmaps v4-mapped addresses: such a
    client of a dual-stack listener is an IPv4 client.
    """

    packed: bytes
    port: int

    @classmethod
    def of(cls, packed: bytes, port: int) -> Address:
        """Make an Address from network bytes; a v4-mapped IPv6 address becomes IPv4."""
        if packed.startswith(MAPPED_PREFIX) and len(packed) == 16:
            return cls(packed[12:], port)
        return cls(packed, port)

    @property
    def host(self) -> str:
        """The address without port: RFC 5952 without brackets, or dotted quad."""
        return ip_text(self.packed)

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


@functools.lru_cache(maxsize=4096)  # 5 us each, and a v1 header needs two
def ip_text(packed: bytes) -> str:
    """The RFC 5952 text of 4 or 16 network bytes.

    `str()` writes the tail of a v4-mapped address in hexadecimal up to Python 3.12;
    RFC 5952, section 5, wants it dotted.
    """
    if len(packed) == 16 and packed.startswith(MAPPED_PREFIX):
        return f"::ffff:{ipaddress.IPv4Address(packed[12:])}"
    return str(ipaddress.ip_address(packed))


def bracketed(host: str) -> str:
    """The host in brackets if it is IPv6, for use before `:port`."""
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a forward: an IP address or host name with a port, or a unix socket.

    `host` is without brackets and may carry a zone (`fe80::1%eth0`); `path` is set for a
    unix socket only, and then host is "" and port 0. `container` is set for a target that
    follows a container, `web` or `web@network`; then host is the container's address now, ""
    while it has none. The text form omits TCP, and a container's address.
    """

    host: str
    port: int
    path: str = ""
    protocol: Protocol = Protocol.TCP
    container: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        slash = "" if self.protocol is Protocol.TCP else f"/{self.protocol}"
        if self.container:
            return f"docker:{self.container}:{self.port}{slash}"
        return f"{bracketed(self.host)}:{self.port}{slash}"

    @property
    def is_name(self) -> bool:
        """Whether the host is a name that has to be resolved."""
        return not (self.path or self.container or is_ip(self.host))

    @property
    def is_absent(self) -> bool:
        """Whether it is a container that has no address now."""
        return bool(self.container) and not self.host


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a relay. Times are in seconds; 0 turns a limit off where the text says so."""

    connect_timeout: float = 5.0
    """For the target to accept the connection. 5 s includes two SYN retries (1 s, 3 s)."""
    drain_timeout: float = 30.0
    """For flows to finish after SIGTERM; 30 s is the grace period of Kubernetes, too."""
    interrupt_timeout: float = 1.0
    """The same after SIGINT: dockerd, or whoever pressed ^C, waits for the exit."""
    idle_timeout: float = 0.0
    """Without a byte in either direction; 0: no limit, as docker-proxy."""
    header_timeout: float = 3.0
    """For an incoming PROXY header; its specification (section 2) asks for at least 3 s."""
    request_timeout: float = 20.0
    """For the head of an HTTP request; 20 s is the initial value of Apache's RequestReadTimeout."""
    body_timeout: float = 60.0
    """In the body of an HTTP request without a byte either way; 60 s as nginx; 0: no limit."""
    response_timeout: float = 0.0
    """For an HTTP answer to begin, and to go on; 0: no limit, since a target may take its time."""
    half_closed_timeout: float = 0.0
    """Without a byte after one end has closed its sending half; 0: no limit, as HAProxy."""
    tunnel_timeout: float = 0.0
    """Without a byte in a connection that HTTP has left, by Upgrade or opaque; 0: no limit."""
    udp_timeout: float = 90.0
    """For a UDP session without a datagram in either direction; 90 s as docker-proxy."""
    max_head: int = 16 * 1024
    """Bytes of the head of an HTTP request, 16 KiB to 256 KiB; HAProxy's buffer has 16 KiB."""
    max_flows: int = 0
    """Concurrent TCP flows of this process, and as many UDP sessions; 0: as many as descriptors
    allow."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Access rules and rate limits. A client is one IPv4 address or one IPv6 network."""

    allow: tuple[IPNetwork, ...] = ()
    """If any: only these networks are accepted."""
    deny: tuple[IPNetwork, ...] = ()
    """These networks are refused, even if `allow` has them."""
    client_flows: int = 0
    """Concurrent flows per client, over all workers; 0: no limit."""
    client_rate: float = 0.0
    """New flows per second per client; a burst of one second, at least one flow; 0: no limit."""
    client_prefix: int = 64
    """Prefix length that identifies an IPv6 client, 1 to 128. A link has a /64 (RFC 4291, 2.5.1),
    and a host on it may use any address in it."""

    @property
    def counts_clients(self) -> bool:
        """Whether state is kept per client."""
        return bool(self.client_flows or self.client_rate)


PSEUDO_WIDTHS = (64, 128)
"""Prefix lengths that a pseudo IPv4 address may stand for: a /64, or a single address."""


NO_NETNS = "none"


@dataclass(frozen=True, slots=True)
class Transparent:
    """Options of mode `transparent`; other modes ignore them."""

    netns: str = ""
    """The target's network namespace: a PATH, a PID, a NAME of ip-netns(8), or an ADDRESS in it.
    "": the namespace on this host that has the target's address, if any. NO_NETNS: connect over
    the network, with pseudo IPv4 addresses for IPv6 clients."""
    fallback: TransparentFallback = TransparentFallback.REFUSE
    pseudo_bits: int = 64
    """Prefix length that a pseudo IPv4 address stands for; see PSEUDO_WIDTHS."""
    pseudo_store: str = "/var/lib/v6fwd/pseudo-ipv4.sqlite"
    """The database of assigned pseudo IPv4 addresses."""


class Balance(enum.StrEnum):
    """Which task of a Swarm service a new flow tries first."""

    LOCAL = "local"  # one of this node, by turns; else one elsewhere
    ROUND_ROBIN = "round-robin"  # all by turns
    LEAST_FLOWS = "least-flows"  # the one with the fewest flows of this process; ties by turns


@dataclass(frozen=True, slots=True)
class Mesh:
    """Where a port of Docker's routing mesh leads: tasks, reached from another namespace.

    The addresses are IPv4 addresses in the ingress network; the port is the forward's target's.
    """

    netns: str = ""
    """The path of the namespace to connect from, dockerd's ingress_sbox; "": no port of a mesh."""
    identity: str = ""
    """Which namespace is there now: dockerd makes another one at each start."""
    local: tuple[str, ...] = ()
    """Tasks on this node."""
    remote: tuple[str, ...] = ()
    """Tasks on other nodes."""
    hops: tuple[str, ...] = ()
    """Nodes with tasks, which take flows with a PROXY v2 header whatever the mode is."""
    hop_port: int = 0
    """Where they do."""
    is_hop: bool = False
    """Whether this is where other nodes' flows come in."""
    pids: tuple[str, ...] = ()
    """In mode `transparent`: the process of each of the former, in whose namespace it is."""
    balance: Balance = Balance.LOCAL
    affinity: bool = False
    """Whether a client, or its /64, stays with one task."""


@dataclass(frozen=True, slots=True)
class Forward:
    """One listening endpoint and the target behind it: Docker's "published port"."""

    listen: Endpoint
    target: Endpoint
    client_ip: ClientIP = ClientIP.NONE
    accept_proxy: tuple[IPNetwork, ...] = ()
    udp_proxy: UdpProxy = UdpProxy.EVERY
    pass_tlvs: int = 0
    """Largest PROXY v2 header, in bytes, with the TLVs of an accepted one; 0: pass no TLVs."""
    trust_forwarded: tuple[IPNetwork, ...] = ()
    keep_underscores: bool = False
    on_opaque: OnOpaque = OnOpaque.REFUSE
    limits: Limits = Limits()
    guard: Guard = Guard()
    transparent: Transparent = Transparent()
    mesh: Mesh = Mesh()
    """Where it leads in place of `target`'s host, if that is a service of Swarm."""

    def __str__(self) -> str:
        return f"{self.listen} -> {self.target}"

    @property
    def protocol(self) -> Protocol:
        """The protocol of both ends."""
        return self.listen.protocol


_ZONE_RE = Lazy(r"[!-$&-.0-~]{1,15}")  # interface index or name, shorter than IFNAMSIZ


@functools.lru_cache(maxsize=1024)  # many forwards have few hosts
def is_ip(host: str) -> bool:
    """Whether the text is an IP address, with or without a zone."""
    address, percent, zone = host.partition("%")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return not percent or (":" in address and _ZONE_RE.fullmatch(zone) is not None)
