"""Parses what users write; commands, files and labels share the notation."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence

from v6fwd.model.nouns import (
    MAPPED_PREFIX,
    Endpoint,
    InputError,
    IPNetwork,
    Protocol,
    ip_text,
    is_ip,
)
from v6fwd.model.patterns import Lazy

_NAME_RE = Lazy(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_CONTAINER_RE = Lazy(r"(?a)[A-Za-z0-9][\w.-]*(?:@[A-Za-z0-9][\w.-]*)?")
_NUMBER_RE = Lazy(r"[0-9]+(\.[0-9]+)?")
_TIME_RE = Lazy(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)")
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE_RE = Lazy(r"([0-9]{1,9})([km]?)")
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20}
_URL_RE = Lazy(r"(?a)([a-z]+)://(\[[^\]]*\]|[^/:]*)(?::([0-9]+))?.*")
_URL_PORTS = {"http": "80", "https": "443"}
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")
MAX_SECONDS = 366 * 86_400.0
_UNIX_PATH_MAX = 107  # sun_path holds 108 bytes with its final NUL, unix(7)


def parse_listen(text: str) -> list[Endpoint]:
    """LISTEN: `[::]:8080`, `0.0.0.0:8080`, `8080` (= `[::]:8080`), `[::]:5000-5009`.

    Each may end in `/tcp`, `/udp` or `/tcp+udp`; the default is TCP. A range yields one Endpoint
    per port, `/tcp+udp` yields two. Raises InputError.
    """
    _refuse_url(text)
    rest, protocols = _protocols(text)
    if rest.replace("-", "").isdecimal():
        rest = f"[::]:{rest}"
    host, ports = _host_and_ports(text, rest, "[::]:8080, 0.0.0.0:8080 or 8080")
    if host.lower() == "localhost":
        port = rest.rpartition(":")[2]
        raise InputError(f"{text!r}: write [::1]:{port} or 127.0.0.1:{port} for {host}")
    if not is_ip(host):
        raise InputError(f"{text!r}: {host!r} is not an IP address; write [::] to listen on all")
    return _endpoints(host, ports, protocols)


def parse_target(text: str, protocol: Protocol | None = None) -> list[Endpoint]:
    """TARGET: `172.17.0.2:80`, `host:80`, `[2001:db8::5]:80`, `unix:/run/app.sock`, or a range;
    `docker:web:80` or `docker:web@network:80` for a container.

    `protocol` is LISTEN's and applies to TARGET too; naming another one is an error. A range
    yields one Endpoint per port. Raises InputError.
    """
    if text.startswith("unix:"):
        if protocol is Protocol.UDP:
            raise InputError(f"{text!r}: a unix socket cannot be the target of {protocol}")
        return [_unix_endpoint(text)]
    _refuse_url(text)
    rest, protocols = _protocols(text)
    container, host = "", ""
    if rest.startswith("docker:") and rest.count(":") > 1:
        container, ports = _container_and_ports(text, rest)
    else:
        host, ports = _host_and_ports(text, rest, "172.17.0.2:80, name:80 or unix:/run/app.sock")
        if not is_ip(host) and not _is_host_name(host):
            raise InputError(f"{text!r}: {host!r} is neither an IP address nor a host name")
    if protocol is not None and protocols and protocol not in protocols:
        raise InputError(f"{text!r}: LISTEN is for {protocol}; both ends need the same protocol")
    return _endpoints(host, ports, (protocol,) if protocol else protocols, container)


def pair_up(listen: str, target: str) -> list[tuple[Endpoint, Endpoint]]:
    """Pair LISTEN with TARGET port by port. Raises InputError if their lengths differ."""
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
    """Parse `CIDR[,CIDR]`, networks or single addresses. Raises InputError."""
    return tuple(_network(part.strip()) for part in text.split(","))


def parse_seconds(text: str, *, zero: bool = False) -> float:
    """Parse a time of 0.001 s to 366 days: `5`, `5s`, `2m`, `1h`; `zero` allows 0, too.

    Raises InputError.
    """
    match = _TIME_RE.fullmatch(text)
    number = float(match[1]) * _UNITS[match[2]] if match else -1.0
    if 0.001 <= number <= MAX_SECONDS or (zero and number == 0):
        return number
    least = "0" if zero else "0.001"
    raise InputError(
        f"{text!r} is not a time; write {least} to {MAX_SECONDS:.0f} seconds, or 500ms, 5s, 2m, 1h"
    )


def parse_rate(text: str) -> float:
    """Parse flows per second: 0.001 to 1,000,000, or 0. Raises InputError."""
    number = _number(text)
    if number == 0 or 0.001 <= number <= 1e6:
        return number
    raise InputError(f"{text!r} is not a rate; write 0.001 to 1000000 flows per second, or 0")


def parse_size(text: str, least: int, most: int) -> int:
    """Parse bytes, as a number, in KiB (`32k`) or MiB (`1m`), within bounds. Raises InputError."""
    match = _SIZE_RE.fullmatch(text)
    number = int(match[1]) * _SIZES[match[2]] if match else -1
    if not least <= number <= most:
        bounds = f"{_size_text(least)} to {_size_text(most)}"
        raise InputError(f"{text!r} is not a size; write {bounds}, or bytes")
    return number


def _size_text(size: int) -> str:
    return str(size) if size % 1024 or not size else f"{size // 1024}k"


def parse_max_head(text: str) -> int:
    """Parse the largest size of a request's head, 16 KiB to 256 KiB. Raises InputError.

    A larger head that arrives byte by byte would be copied too often.
    """
    return parse_size(text, 16 * 1024, 256 * 1024)


def _number(text: str) -> float:
    return float(text) if _NUMBER_RE.fullmatch(text) else -1.0


def _refuse_url(text: str) -> None:
    """Raise InputError for a URL, with what is meant most likely."""
    if "://" in text and (match := _URL_RE.fullmatch(text)):
        port = match[3] or _URL_PORTS.get(match[1], "PORT")
        raise InputError(f"{text!r} is a URL; write {match[2] or 'HOST'}:{port}")


def _ports(count: int) -> str:
    return f"{count} port{'s' if count > 1 else ''}"


def _protocols(text: str) -> tuple[str, tuple[Protocol, ...]]:
    """Split off the protocols; they come in the order of Protocol, none if none is named."""
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


def _endpoints(
    host: str, ports: range, protocols: Sequence[Protocol], container: str = ""
) -> list[Endpoint]:
    """All ports for one protocol, then all for the other; TCP if none is named."""
    return [
        Endpoint(host, port, protocol=protocol, container=container)
        for protocol in protocols or (Protocol.TCP,)
        for port in ports
    ]


def _host_and_ports(text: str, rest: str, example: str) -> tuple[str, range]:
    host, colon, digits = rest.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    if not colon or {*host} & {*("[]" if is_bracketed else "[]:")}:
        hint = "an IPv6 address needs brackets, " if rest.count(":") > 1 else ""
        raise InputError(f"{text!r} is not an address and port: {hint}write {example}")
    if is_bracketed and not (is_ip(host) and ":" in host):
        raise InputError(f"{text!r}: {host!r} is not an IPv6 address")
    if not host:
        raise InputError(f"{text!r} names no address: write {example}")
    ports = _port_range(text, digits)
    if is_ip(host) and "%" not in host and ipaddress.ip_address(host) in _LINK_LOCAL:
        example = f"[{host}%eth0]:{digits}"
        raise InputError(f"{text!r}: {host} is of one link, so name its device, as in {example}")
    return _one_spelling(host), ports


def _container_and_ports(text: str, rest: str) -> tuple[str, range]:
    container, _, ports = rest.removeprefix("docker:").rpartition(":")
    if not _CONTAINER_RE.fullmatch(container):
        raise InputError(
            f"{text!r}: {container!r} names no container; write docker:NAME:PORT or"
            " docker:NAME@NETWORK:PORT"
        )
    return container, _port_range(text, ports)


@functools.lru_cache(maxsize=1024)
def _one_spelling(host: str) -> str:
    """Addresses in the form of RFC 5952, so that equal ones compare equal; names unchanged."""
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
