"""Reads the flags that dockerd gives docker-proxy (moby, cmd/docker-proxy). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from v6fwd.model import Endpoint, Forward, InputError, Protocol, is_ip
from v6fwd.model.lean import dataclass

_ADDRESSES = ("host-ip", "container-ip")
_PORTS = ("host-port", "container-port")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True)
class ProxyFlags:
    """What dockerd wants forwarded; `use_listen_fd`: its socket is descriptor 4."""

    forward: Forward
    use_listen_fd: bool = False


def parse_flags(words: Sequence[str]) -> ProxyFlags:
    """Read `-proto tcp -host-ip :: -host-port 8080 -container-ip 172.17.0.2 -container-port 80`.

    As Go's flag package does: one dash or two, `-x y` or `-x=y`. Raises InputError.
    """
    values = {"proto": "tcp", **dict.fromkeys(_ADDRESSES, "0.0.0.0"), **dict.fromkeys(_PORTS, "-1")}
    use_listen_fd = False
    for name, value in _pairs(iter(words)):
        if name == "use-listen-fd":
            use_listen_fd = _truth(name, value)
        elif name not in values:
            raise InputError(f"flag provided but not defined: -{name}")
        else:
            values[name] = value
    listen, target = (_endpoint(values, side) for side in ("host", "container"))
    return ProxyFlags(Forward(listen, target), use_listen_fd)


def _pairs(words: Iterator[str]) -> Iterable[tuple[str, str]]:
    for word in words:
        if not word.startswith("-") or not word.strip("-"):
            raise InputError(f"{word!r} is no flag; write -proto tcp -host-ip ... and so on")
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not equals and name != "use-listen-fd":
            value = next(words, "")
            if not value:
                raise InputError(f"flag needs an argument: -{name}")
        yield name, value if equals or value else "true"


def _truth(name: str, value: str) -> bool:
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise InputError(f"-{name}: {value!r} is neither true nor false")


def _endpoint(values: dict[str, str], side: str) -> Endpoint:
    host, digits = values[f"{side}-ip"], values[f"{side}-port"]
    if not is_ip(host):
        raise InputError(f"-{side}-ip: {host!r} is not an IP address")
    port = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 5 else -1
    if not 0 <= port <= 65535:
        raise InputError(f"-{side}-port: {digits!r} is not a port; write 1 to 65535")
    if values["proto"] not in tuple(Protocol):
        raise InputError(f"unsupported protocol {values['proto']}")
    return Endpoint(host, port, protocol=Protocol(values["proto"]))
