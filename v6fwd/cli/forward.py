"""`v6fwd forward`: LISTEN TARGET pairs, served in the foreground."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click
import uvloop

from v6fwd.errors import RelayError
from v6fwd.log import Log, LogFormat, keep_standard_descriptors
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
    Transparent,
    TransparentFallback,
    UdpProxy,
    pair_up,
    parse_max_head,
    parse_networks,
    parse_rate,
    parse_seconds,
    refuse_misfits,
    refuse_twins,
)
from v6fwd.relay.foreground import run

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


class Networks(click.ParamType[tuple[IPNetwork, ...]]):
    """CIDR[,CIDR]."""

    name = "cidr[,cidr]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[IPNetwork, ...]:
        """See click.ParamType."""
        try:
            return parse_networks(value)
        except InputError as error:
            raise click.BadParameter(str(error), ctx, param) from None


class Number(click.ParamType[float]):
    """A number that `parse` takes: a time, a rate or a size."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See click.ParamType."""
        try:
            return self._parse(str(value))
        except InputError as error:
            raise click.BadParameter(str(error), ctx, param) from None


def _pairs(
    ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
) -> list[tuple[Endpoint, Endpoint]]:
    if len(words) % 2:
        raise click.BadParameter(f"LISTEN {words[-1]!r} has no TARGET behind it", ctx, param)
    try:
        pairs = [pair_up(*words[at : at + 2]) for at in range(0, len(words), 2)]
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return [pair for some in pairs for pair in some]


def _limit(name: str, zero: bool, text: str) -> Callable[[_F], _F]:
    """The option of a time in Limits."""
    return _field(name, Number("seconds", functools.partial(parse_seconds, zero=zero)), text)


def _field(name: str, kind: click.ParamType[Any], text: str) -> Callable[[_F], _F]:
    """The option of one field of Limits or Guard, which has its default and its reason."""
    return click.option(
        f"--{name.replace('_', '-')}",
        type=kind,
        default=_DEFAULTS[name],
        show_default=True,
        help=text,
    )


def _networks(name: str, text: str) -> Callable[[_F], _F]:
    """An option that takes networks, all at once or one after the other."""
    return click.option(f"--{name}", type=Networks(), multiple=True, callback=_flat, help=text)


def _flat(
    _ctx: click.Context, _param: click.Parameter, lists: tuple[tuple[IPNetwork, ...], ...]
) -> tuple[IPNetwork, ...]:
    return tuple(network for some in lists for network in some)


@click.command(epilog="Exit status: 0 after a clean stop, 1 if it cannot run, 2 for bad arguments.")
@click.argument(
    "pairs",
    nargs=-1,
    required=True,
    metavar="LISTEN TARGET [LISTEN TARGET]...",
    callback=_pairs,
)
@click.option(
    "--client-ip",
    type=click.Choice([mode.value for mode in ClientIP]),
    default=ClientIP.NONE.value,
    show_default=True,
    help="How the target learns who the client is: not at all, by a PROXY protocol header, or by"
    " a field in each HTTP/1 request.",
)
@_networks(
    "accept-proxy",
    "Require a PROXY header (v1 or v2) from clients in these networks, and believe it.",
)
@click.option(
    "--udp-proxy",
    type=click.Choice([which.value for which in UdpProxy]),
    default=UdpProxy.EVERY.value,
    show_default=True,
    help="With --client-ip proxy-v2: the header in front of every datagram of a UDP session, or"
    " of its first only.",
)
@click.option(
    "--pass-tlvs",
    type=click.IntRange(0, 0xFFFF),
    default=0,
    show_default=True,
    metavar="BYTES",
    help="With --accept-proxy and --client-ip proxy-v2: pass on the TLVs of the accepted header,"
    " as far as the new one stays within BYTES. Apache reads 232, MariaDB 256, PowerDNS 512,"
    " Postfix 536, nginx 1024.",
)
@_networks(
    "trust-forwarded",
    "Clients in these networks are HTTP proxies: what they say in X-Forwarded-For or"
    " Forwarded is kept, and their own address appended.",
)
@click.option(
    "--keep-underscores",
    is_flag=True,
    help="Pass HTTP fields with an underscore in their name, which are dropped otherwise.",
)
@click.option(
    "--on-opaque",
    type=click.Choice([what.value for what in OnOpaque]),
    default=OnOpaque.REFUSE.value,
    show_default=True,
    help="What is not HTTP/1 where HTTP is read (TLS, HTTP/2, CONNECT): refuse it, or pass it on"
    " without the client's address.",
)
@click.option(
    "--target-netns",
    default="",
    metavar="PATH|PID|NAME|ADDRESS|none",
    help="With --client-ip transparent: the network namespace that TARGET is in. Without it the"
    " container on this host that has TARGET's address is found; where there is none, or with"
    " none, TARGET is reached over the network, and IPv6 clients come from pseudo IPv4 addresses.",
)
@click.option(
    "--transparent-fallback",
    type=click.Choice([fallback.value for fallback in TransparentFallback]),
    default=TransparentFallback.REFUSE.value,
    show_default=True,
    help="What becomes of a client that cannot be shown, as one from loopback.",
)
@click.option(
    "--pseudo-ipv4",
    type=click.Choice([str(bits) for bits in PSEUDO_WIDTHS]),
    default=str(Transparent().pseudo_bits),
    show_default=True,
    help="What a pseudo IPv4 address stands for: an IPv6 /64, or a single address.",
)
@click.option(
    "--pseudo-store",
    default=Transparent().pseudo_store,
    show_default=True,
    metavar="FILE",
    help="Where pseudo IPv4 addresses are written down; see `v6fwd whois`.",
)
@_limit("connect_timeout", False, "For the target to answer.")
@_limit("drain_timeout", True, "For flows to finish after SIGTERM; then they are reset.")
@_limit("interrupt_timeout", True, "The same after SIGINT.")
@_limit("idle_timeout", True, "Reset a flow that moves no byte for so long; 0: never.")
@_limit("header_timeout", False, "For the PROXY header of a client in --accept-proxy.")
@_limit("request_timeout", False, "For the head of an HTTP request.")
@_field(
    "max_head",
    Number("size", parse_max_head),
    "Largest head of an HTTP request, up to 256k; for large cookies.",
)
@_limit("udp_timeout", False, "A UDP session ends after so long without a datagram.")
@_field(
    "max_flows",
    click.IntRange(min=0),
    "TCP flows at once, and UDP sessions; 0: as many as there are descriptors for.",
)
@_networks("allow", "Serve clients in these networks alone; the others are reset.")
@_networks("deny", "Reset clients in these networks, even if --allow has them.")
@_field("client_flows", click.IntRange(min=0), "Flows at once of one client; 0: no limit.")
@_field("client_rate", Number("flows/second", parse_rate), "New flows of one client; 0: no limit.")
@_field("client_prefix", click.IntRange(1, 128), "Bits of an IPv6 address that are one client.")
@click.option("--log-flows", is_flag=True, help="Log a line for every flow when it ends.")
@click.option(
    "--log-format",
    type=click.Choice([style.value for style in LogFormat]),
    default=LogFormat.TEXT.value,
    show_default=True,
    help="How log lines look, on stderr.",
)
def forward(
    pairs: list[tuple[Endpoint, Endpoint]],
    log_flows: bool,
    log_format: str,
    **others: Any,
) -> None:
    """Listen on LISTEN and forward connections or datagrams to TARGET, until SIGINT or SIGTERM.

    \b
    LISTEN  [::]:8080        IPv6 and IPv4 (8080 alone means the same)
            0.0.0.0:8080     IPv4 only
            [::]:5000-5009   a range; its TARGET has one as long
            [::]:53/udp      UDP; [::]:53/tcp+udp is both
    TARGET  172.17.0.2:80    name:80   [2001:db8::5]:80   unix:/run/app.sock

    \b
    Example: what a web server in an IPv4-only container needs to log the real client:
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
    keep_standard_descriptors()
    log = Log(LogFormat(log_format))
    try:
        run(
            forwards,
            limits,
            log,
            log_flows=log_flows,
            loop_factory=uvloop.new_event_loop,
        )
    except RelayError as error:
        log.error("failed", str(error))
        sys.exit(1)
