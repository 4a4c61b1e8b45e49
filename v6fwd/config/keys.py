"""The keys of the configuration and the type of each. Keys are named after the long options.

`model` parses the values of options and keys alike. A number may be quoted; a list of networks may
be an array.
"""

from __future__ import annotations

import functools
import grp
import pwd
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from v6fwd.config.rules import parse_host_ports
from v6fwd.log import LogFormat
from v6fwd.model import (
    PSEUDO_WIDTHS,
    Balance,
    ClientIP,
    Endpoint,
    InputError,
    IPNetwork,
    OnOpaque,
    Protocol,
    RelayEngine,
    TransparentFallback,
    UdpProxy,
    parse_listen,
    parse_max_head,
    parse_networks,
    parse_rate,
    parse_seconds,
    parse_size,
    parse_target,
)
from v6fwd.model.hints import did_you_mean

Parse = Callable[[Any], Any]
"""Parses a value as TOML delivers it; raises InputError."""

MAX_WORKERS = 256
MAX_PROXY_HEADER = 0xFFFF


# ---- values ----------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError("not a text; put it into quotes")
    return value


def _number(value: Any) -> str:
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return str(value)
    except ValueError:  # an integer of thousands of digits, which TOML can write as 0xfff...
        pass
    raise InputError("not a number")


def _whole(value: Any, least: int, most: int = 10**9) -> int:
    text = _number(value)
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else -1
    if not least <= number <= most:
        raise InputError(f"not a whole number from {least} to {most}")
    return number


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError("write true or false, without quotes")
    return value


def _choice(value: Any, kind: type[StrEnum]) -> StrEnum:
    text = _text(value)
    if text not in tuple(kind):
        raise InputError(f"not one of {', '.join(kind)}{did_you_mean(text, kind)}")
    return kind(text)


def _seconds(value: Any) -> float:
    return parse_seconds(_number(value))


def _seconds_or_zero(value: Any) -> float:
    return parse_seconds(_number(value), zero=True)


def _head_size(value: Any) -> int:
    return parse_max_head(_number(value))


def _tlv_size(value: Any) -> int:
    return parse_size(_number(value), 0, MAX_PROXY_HEADER)


def _rate(value: Any) -> float:
    return parse_rate(_number(value))


def _parts(value: Any) -> list[str]:
    return [_text(part) for part in (value if isinstance(value, list) else [value])]


def _networks(value: Any) -> tuple[IPNetwork, ...]:
    return tuple(network for part in _parts(value) for network in parse_networks(part))


def _listen(value: Any) -> str:
    """Stays a string: ports are paired only when TARGET is known too."""
    text = _number(value) if type(value) is int else _text(value)
    parse_listen(text)
    return text


def _target(value: Any) -> str:
    text = _text(value)
    parse_target(text)
    return text


def _socket_path(value: Any) -> str:
    text = _text(value)
    return parse_target(f"unix:{text}")[0].path if text else ""


def _metrics_address(value: Any) -> Endpoint | None:
    if value == "":
        return None
    if isinstance(value, str) and value.startswith("unix:"):
        return parse_target(value)[0]
    endpoints = parse_listen(_listen(value))
    if len(endpoints) > 1 or endpoints[0].protocol is not Protocol.TCP:
        raise InputError("metrics have one TCP port; write one such as [::1]:9464")
    return endpoints[0]


def _host_name(value: Any) -> str:
    """A name without port, or ""."""
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9_.-]{0,253}", text):
        raise InputError("not a host name; write one such as v6fwd.example.net")
    return text


def _netns(value: Any) -> str:
    """PATH, PID, NAME, ADDRESS or none; a PID may be a TOML integer."""
    return str(_whole(value, 1)) if type(value) is int else _text(value)


def _pseudo_width(value: Any) -> int:
    text = _number(value)
    if text not in map(str, PSEUDO_WIDTHS):
        raise InputError(f"not one of {', '.join(map(str, PSEUDO_WIDTHS))}")
    return int(text)


def _path(value: Any) -> str:
    text = _text(value)
    if not text.isprintable() or not text:
        raise InputError("not a path")
    return text


def _path_or_none(value: Any) -> str:
    return _path(value) if value != "" else ""


def _docker_host(value: Any) -> str:
    text = _text(value)
    if not text.startswith("unix:///"):
        raise InputError("not a socket of the Engine; write one such as unix:///run/docker.sock")
    return text


def _host_ports(value: Any) -> tuple[range, Protocol | None]:
    return parse_host_ports(str(value) if type(value) is int else _text(value))


def _name(value: Any, what: str, look_up: Callable[[str], object]) -> str:
    text = _text(value)
    try:
        if text:
            look_up(text)
    except (KeyError, ValueError):
        raise InputError(f"there is no such {what} on this machine") from None
    return text


# ---- tables ----------------------------------------------------------------------------------

_count = functools.partial(_whole, least=0)

PROCESS_LIMITS: dict[str, Parse] = {
    "drain-timeout": _seconds_or_zero,
    "interrupt-timeout": _seconds_or_zero,
    "max-flows": _count,
}
FLOW_LIMITS: dict[str, Parse] = {
    "connect-timeout": _seconds,
    "idle-timeout": _seconds_or_zero,
    "header-timeout": _seconds,
    "request-timeout": _seconds,
    "body-timeout": _seconds_or_zero,
    "response-timeout": _seconds_or_zero,
    "half-closed-timeout": _seconds_or_zero,
    "tunnel-timeout": _seconds_or_zero,
    "max-head": _head_size,
    "udp-timeout": _seconds,
}
GUARD: dict[str, Parse] = {
    "allow": _networks,
    "deny": _networks,
    "client-flows": _count,
    "client-rate": _rate,
    "client-prefix": functools.partial(_whole, least=1, most=128),
}
TOP: dict[str, Parse] = {
    "workers": functools.partial(_whole, least=1, most=MAX_WORKERS),
    "engine": functools.partial(_choice, kind=RelayEngine),
    "user": functools.partial(_name, what="user", look_up=pwd.getpwnam),
    "include": _parts,
    "log-format": functools.partial(_choice, kind=LogFormat),
    "log-flows": _truth,
    **PROCESS_LIMITS,
}
MODES: dict[str, Parse] = {
    "client-ip": functools.partial(_choice, kind=ClientIP),
    "accept-proxy": _networks,
    "udp-proxy": functools.partial(_choice, kind=UdpProxy),
    "pass-tlvs": _tlv_size,
    "trust-forwarded": _networks,
    "keep-underscores": _truth,
    "on-opaque": functools.partial(_choice, kind=OnOpaque),
}
TRANSPARENT: dict[str, Parse] = {  # in the order of the fields of model.Transparent
    "target-netns": _netns,
    "transparent-fallback": functools.partial(_choice, kind=TransparentFallback),
    "pseudo-ipv4": _pseudo_width,
    "pseudo-store": _path,
}
DEFAULTS: dict[str, Parse] = {
    **MODES,
    **TRANSPARENT,
    **FLOW_LIMITS,
    **GUARD,
}
PAIR: dict[str, Parse] = {"listen": _listen, "target": _target}
CONTROL: dict[str, Parse] = {
    "socket": _socket_path,
    "group": functools.partial(_name, what="group", look_up=grp.getgrnam),
}
METRICS: dict[str, Parse] = {
    "listen": _metrics_address,
    "status-page": _truth,
    "status-host": _host_name,
    "token-file": _path_or_none,
    "admin": _truth,
}
DOCKER_TRANSPARENT = {key: parse for key, parse in TRANSPARENT.items() if key != "target-netns"}
SWARM: dict[str, Parse] = {
    "swarm": _truth,
    "swarm-balance": functools.partial(_choice, kind=Balance),
    "swarm-affinity": _truth,
}
DOCKER: dict[str, Parse] = {
    "host": _docker_host,
    **DOCKER_TRANSPARENT,
    "transparent-address": _truth,
    **SWARM,
}
DOCKER_RULE: dict[str, Parse] = {
    "host-port": _host_ports,
    "container": _text,
    "network": _text,
    "image": _text,
    "service": _text,
    "client-ip": MODES["client-ip"],
    **{key: parse for key, parse in GUARD.items() if key != "client-prefix"},
}

TABLES: dict[str, dict[str, Parse]] = {
    "the main file": TOP,
    "an included file": {},
    "[defaults]": DEFAULTS,
    "[[forward]]": {**PAIR, **DEFAULTS},
    "[control]": CONTROL,
    "[metrics]": METRICS,
    "[docker]": DOCKER,
    "[[docker.rule]]": DOCKER_RULE,
}
REQUIRED = {
    "[[forward]]": {"listen": 'listen = "[::]:8080"', "target": 'target = "172.17.0.2:80"'},
    "[[docker.rule]]": {"client-ip": 'client-ip = "proxy-v2"'},
}
"""The required keys of a table, with an example of each."""

_HOMES = {
    "at the top of the main file, above all tables": TOP,
    "in [defaults] or a [[forward]]": DEFAULTS,
    "in a [[forward]]": PAIR,
    "in [control]": CONTROL,
    "in [docker]": DOCKER,
    "in a [[docker.rule]]": DOCKER_RULE,
}
_SINGLE = ("defaults", "control", "metrics", "docker")
"""Tables that occur once."""


def unknown_key(table: str, key: str) -> str:
    """Return the error for a key that `table` does not have."""
    for place, home in _HOMES.items():
        if key in home:
            return f"unknown key in {table}; it belongs {place}"
    if key in _SINGLE:
        return f"unknown key in {table}; [{key}] belongs into the main file"
    known = [*TABLES[table], *(("forward", *_SINGLE) if table == "the main file" else ())]
    guess = did_you_mean(key, known) or f"; there are {', '.join(known)}"
    return f"unknown key in {table}{guess}"
