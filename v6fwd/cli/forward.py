"""`v6fwd forward`: LISTEN TARGET pairs, served in the foreground."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click
import uvloop

from v6fwd.log import Log, LogFormat, keep_standard_descriptors
from v6fwd.model import (
    ClientIP,
    Endpoint,
    Forward,
    InputError,
    IPNetwork,
    Limits,
    Transparent,
    TransparentFallback,
    UdpProxy,
    pair_up,
    parse_networks,
    refuse_misfits,
    refuse_twins,
)
from v6fwd.relay.service import run
from v6fwd.relay.sockets import RelayError

_NUMBER_RE = re.compile(r"[0-9]+(\.[0-9]+)?")
_F = TypeVar("_F", bound=Callable[..., Any])
_DEFAULTS = {field.name: field.default for field in fields(Limits)}


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


class Seconds(click.ParamType[float]):
    """A time limit, 0 included where `zero` says so."""

    name = "seconds"
    most = 366 * 86_400.0

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See click.ParamType."""
        text = str(value)
        number = float(text) if _NUMBER_RE.fullmatch(text) else -1.0
        if 0.001 <= number <= self.most or (self._zero and number == 0):
            return number
        least = "0" if self._zero else "0.001"
        message = f"{text!r} is not a time; write {least} to {self.most:.0f} seconds"
        raise click.BadParameter(message, ctx, param)


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
    """The option of one field of Limits, which has its default and its reason."""
    return click.option(
        f"--{name.replace('_', '-')}",
        type=Seconds(zero=zero),
        default=_DEFAULTS[name],
        show_default=True,
        help=text,
    )


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
    help="How the target learns who the client is: not at all, by a PROXY protocol header, or"
    " (transparent) because its connection comes from the client's own address.",
)
@click.option(
    "--accept-proxy",
    type=Networks(),
    multiple=True,
    help="Require a PROXY header (v1 or v2) from clients in these networks, and believe it.",
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
    "--target-netns",
    default="",
    metavar="PATH|PID|NAME",
    help="With --client-ip transparent: the network namespace that TARGET is in. Without it TARGET"
    " is reached over the network, and IPv6 clients come from pseudo IPv4 addresses.",
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
    type=click.Choice(["64", "128"]),
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
@_limit("udp_timeout", False, "A UDP session ends after so long without a datagram.")
@click.option(
    "--max-flows",
    type=click.IntRange(min=0),
    default=_DEFAULTS["max_flows"],
    show_default=True,
    help="TCP flows at once, and UDP sessions; 0: as many as there are descriptors for.",
)
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
    client_ip: str,
    accept_proxy: tuple[tuple[IPNetwork, ...], ...],
    udp_proxy: str,
    target_netns: str,
    transparent_fallback: str,
    pseudo_ipv4: str,
    pseudo_store: str,
    log_flows: bool,
    log_format: str,
    **limits: Any,
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
    networks = tuple(network for some in accept_proxy for network in some)
    mode, which = ClientIP(client_ip), UdpProxy(udp_proxy)
    if target_netns and mode is not ClientIP.TRANSPARENT:
        raise click.UsageError("--target-netns is for --client-ip transparent")
    fallback = TransparentFallback(transparent_fallback)
    how = Transparent(target_netns, fallback, int(pseudo_ipv4), pseudo_store)
    forwards = [Forward(*pair, mode, networks, which, how) for pair in pairs]
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
            Limits(**limits),
            log,
            log_flows=log_flows,
            loop_factory=uvloop.new_event_loop,
        )
    except RelayError as error:
        log.error("failed", str(error))
        sys.exit(1)
