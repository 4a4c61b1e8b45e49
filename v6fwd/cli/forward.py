"""`v6fwd forward`: LISTEN TARGET pairs, served in the foreground."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from v6fwd.cli.grouped import GroupedCommand
from v6fwd.cli.kinds import OneOf, Parsed, whole
from v6fwd.cli.quick import pairs_of
from v6fwd.cli.serving import serve_here
from v6fwd.log import LogFormat
from v6fwd.model import (
    PSEUDO_WIDTHS,
    ClientIP,
    Endpoint,
    Forward,
    Guard,
    InputError,
    IPNetwork,
    Limits,
    OnOpaque,
    RelayEngine,
    Transparent,
    TransparentFallback,
    UdpProxy,
    parse_max_head,
    parse_networks,
    parse_rate,
    parse_seconds,
    parse_size,
    refuse_misfits,
    refuse_twins,
)

_F = TypeVar("_F", bound=Callable[..., Any])
_KINDS = {
    "client_ip": ClientIP,
    "udp_proxy": UdpProxy,
    "on_opaque": OnOpaque,
    "transparent_fallback": TransparentFallback,
    "pseudo_ipv4": int,
}
_TRANSPARENT = ("target_netns", "transparent_fallback", "pseudo_ipv4", "pseudo_store")
"""Options that are the fields of Transparent, in their order."""
_DEFAULTS = {field.name: field.default for some in (Limits, Guard) for field in fields(some)}


def _pairs(
    ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
) -> list[tuple[Endpoint, Endpoint]]:
    if len(words) % 2:
        raise click.BadParameter(f"LISTEN {words[-1]!r} has no TARGET behind it", ctx, param)
    try:
        return pairs_of(words)
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _limit(name: str, zero: bool, text: str) -> Callable[[_F], _F]:
    """Option for a field of Limits in seconds."""
    return _field(name, Parsed("time", functools.partial(parse_seconds, zero=zero)), text)


def _field(name: str, kind: click.ParamType[Any], text: str) -> Callable[[_F], _F]:
    """Option for a field of Limits or Guard, with the field's default."""
    return click.option(
        f"--{name.replace('_', '-')}",
        type=kind,
        default=_DEFAULTS[name],
        show_default=True,
        help=text,
    )


def _networks(name: str, text: str) -> Callable[[_F], _F]:
    """Option that takes networks and may be repeated."""
    return click.option(
        f"--{name}",
        type=Parsed("cidr[,cidr]", parse_networks),
        multiple=True,
        callback=_flat,
        help=text,
    )


def _flat(
    _ctx: click.Context, _param: click.Parameter, lists: tuple[tuple[IPNetwork, ...], ...]
) -> tuple[IPNetwork, ...]:
    return tuple(network for some in lists for network in some)


GROUPS = {
    "Listening": (
        "allow",
        "deny",
        "client_flows",
        "client_rate",
        "client_prefix",
        "max_flows",
        "accept_proxy",
        "header_timeout",
    ),
    "Client-ip": ("client_ip", "pass_tlvs"),
    "Limits": (
        "connect_timeout",
        "idle_timeout",
        "half_closed_timeout",
        "drain_timeout",
        "interrupt_timeout",
        "engine",
    ),
    "UDP": ("udp_proxy", "udp_timeout"),
    "HTTP": (
        "trust_forwarded",
        "keep_underscores",
        "on_opaque",
        "max_head",
        "request_timeout",
        "body_timeout",
        "response_timeout",
        "tunnel_timeout",
    ),
    "Transparent": ("target_netns", "transparent_fallback", "pseudo_ipv4", "pseudo_store"),
    "Log": ("log_flows", "log_format"),
}
"""The headings of the help."""


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    epilog="Exit status: 0 after a clean stop, 1 if it cannot run, 2 for bad arguments."
    " Times are seconds, or have a unit: 500ms, 5s, 2m, 1h. Sizes are bytes, or KiB: 16k.",
)
@click.argument(
    "pairs",
    nargs=-1,
    required=True,
    metavar="LISTEN TARGET [LISTEN TARGET]...",
    callback=_pairs,
)
@click.option(
    "--client-ip",
    type=OneOf(ClientIP),
    default=ClientIP.NONE.value,
    show_default=True,
    help="How the target learns the client's address: not at all, from a PROXY protocol header,"
    " from a field in each HTTP/1 request, or from the source address of its connection.",
)
@_networks(
    "accept-proxy",
    "Require a PROXY header (v1 or v2) from clients in these networks, and trust it.",
)
@click.option(
    "--udp-proxy",
    type=OneOf(UdpProxy),
    default=UdpProxy.EVERY.value,
    show_default=True,
    help="With --client-ip proxy-v2: send the header with every datagram of a UDP session, or with"
    " its first only.",
)
@click.option(
    "--pass-tlvs",
    type=Parsed("size", functools.partial(parse_size, least=0, most=0xFFFF)),
    default=0,
    show_default=True,
    metavar="BYTES",
    help="With --accept-proxy and --client-ip proxy-v2: pass on the TLVs of the accepted header,"
    " as far as the new one stays within BYTES. Apache reads 232, MariaDB 256, PowerDNS 512,"
    " Postfix 536, nginx 1024.",
)
@_networks(
    "trust-forwarded",
    "Trust clients in these networks as HTTP proxies: keep their X-Forwarded-For or Forwarded"
    " and append their own address.",
)
@click.option(
    "--keep-underscores",
    is_flag=True,
    help="Pass HTTP fields with an underscore in their name. Without this they are dropped.",
)
@click.option(
    "--on-opaque",
    type=OneOf(OnOpaque),
    default=OnOpaque.REFUSE.value,
    show_default=True,
    help="In an HTTP mode, refuse connections that are not HTTP/1 (TLS, HTTP/2, CONNECT), or pass"
    " them without the client's address.",
)
@click.option(
    "--target-netns",
    default="",
    metavar="PATH|PID|NAME|ADDRESS|none",
    help="With --client-ip transparent: the network namespace that TARGET is in. By default v6fwd"
    " searches the containers of this host for TARGET's address. If no container has it, or with"
    " none, v6fwd connects over the network, and IPv6 clients get pseudo IPv4 addresses.",
)
@click.option(
    "--transparent-fallback",
    type=OneOf(TransparentFallback),
    default=TransparentFallback.REFUSE.value,
    show_default=True,
    help="What to do with a client whose address cannot be preserved, such as a loopback address.",
)
@click.option(
    "--pseudo-ipv4",
    type=OneOf(PSEUDO_WIDTHS),
    default=str(Transparent().pseudo_bits),
    show_default=True,
    help="Prefix length that one pseudo IPv4 address stands for: an IPv6 /64, or one address.",
)
@click.option(
    "--pseudo-store",
    default=Transparent().pseudo_store,
    show_default=True,
    metavar="FILE",
    help="Database of pseudo IPv4 addresses, for `v6fwd whois`.",
)
@_limit("connect_timeout", False, "Time for the target to accept the connection.")
@_limit("drain_timeout", True, "Time for flows to finish after SIGTERM. Then they are reset.")
@_limit("interrupt_timeout", True, "The same after SIGINT.")
@_limit("idle_timeout", True, "Reset a flow that transfers nothing for this long; 0: never.")
@_limit("header_timeout", False, "Time for the PROXY header of a client in --accept-proxy.")
@_limit("request_timeout", False, "Time for the head of an HTTP request.")
@_limit(
    "body_timeout",
    True,
    "Answer 408 when nothing moves for this long in the body of an HTTP request; 0: never.",
)
@_limit(
    "response_timeout",
    True,
    "Answer 504 when an HTTP answer does not begin for this long, and reset it when it does not go"
    " on; 0: never.",
)
@_limit(
    "half_closed_timeout",
    True,
    "Reset a flow when one end has closed its sending half and nothing moves for this long;"
    " 0: never.",
)
@_limit(
    "tunnel_timeout",
    True,
    "In an HTTP mode, reset an upgraded or opaque connection that transfers nothing for this"
    " long; 0: never.",
)
@_field(
    "max_head",
    Parsed("size", parse_max_head),
    "Largest head of an HTTP request, up to 256k; for large cookies.",
)
@_limit("udp_timeout", False, "End a UDP session after this long without a datagram.")
@_field(
    "max_flows",
    whole(0),
    "Limit of concurrent TCP flows, and of UDP sessions; 0: as many as descriptors allow.",
)
@_networks("allow", "Accept only clients in these networks; reset all others.")
@_networks("deny", "Reset clients in these networks, even if --allow has them.")
@_field("client_flows", whole(0), "Concurrent flows of one client; 0: no limit.")
@_field(
    "client_rate",
    Parsed("flows/second", parse_rate),
    "New flows per second of one client; 0: no limit.",
)
@_field("client_prefix", whole(1, 128), "Prefix length that counts as one IPv6 client.")
@click.option(
    "--engine",
    type=OneOf(RelayEngine),
    default=RelayEngine.AUTO.value,
    show_default=True,
    help="What moves the bytes of plain TCP connections: epoll alone, or io_uring as well where "
    "it can be had and many are busy. ring warns where it cannot.",
)
@click.option("--log-flows", is_flag=True, help="Log a line when a flow ends.")
@click.option(
    "--log-format",
    type=OneOf(LogFormat),
    default=LogFormat.TEXT.value,
    show_default=True,
    help="Format of log lines, which go to stderr.",
)
def forward(
    pairs: list[tuple[Endpoint, Endpoint]],
    log_flows: bool,
    log_format: str,
    engine: str,
    **others: Any,
) -> None:
    """Forward connections or datagrams from LISTEN to TARGET, until SIGINT or SIGTERM.

    \b
    LISTEN  [::]:8080        IPv6 and IPv4 (8080 alone means the same)
            0.0.0.0:8080     IPv4 only
            [::]:5000-5009   a range; TARGET has a range of the same length
            [::]:53/udp      UDP; [::]:53/tcp+udp is both
    TARGET  172.17.0.2:80    name:80   [2001:db8::5]:80   unix:/run/app.sock
            docker:web:80    the container web, at whatever address it has;
                             docker:web@backend:80 in the network backend

    \b
    Example, for a web server in an IPv4-only container:
        v6fwd forward '[::]:8080' 172.17.0.2:80 --client-ip proxy-v2
    """
    limits = Limits(**{field.name: others.pop(field.name) for field in fields(Limits)})
    guard = Guard(**{field.name: others.pop(field.name) for field in fields(Guard)})
    for name, kind in _KINDS.items():
        others[name] = kind(others[name])
    how = Transparent(*(others.pop(name) for name in _TRANSPARENT))
    others |= {"limits": limits, "guard": guard, "transparent": how}
    forwards = [Forward(*pair, **others) for pair in pairs]
    try:
        refuse_twins(forwards)
        refuse_misfits(forwards)
    except InputError as error:
        raise click.UsageError(str(error)) from None
    serve_here(
        forwards,
        limits,
        log_flows=log_flows,
        log_format=LogFormat(log_format),
        engine=RelayEngine(engine),
    )
