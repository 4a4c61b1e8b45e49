"""The data types of v6fwd, the notation that users write them in, and checks of combinations.

Pure. Every error is an `InputError` whose text names what is wrong and what would be right. What
few commands need is not imported here: `banning`, `hints`, `loops`. `lean` and `patterns` stand for
parts of the standard library that would take a third of a start.
"""

from v6fwd.model.checks import (
    refuse_misfits,
    refuse_twins,
)
from v6fwd.model.notation import (
    pair_up,
    parse_listen,
    parse_max_head,
    parse_networks,
    parse_rate,
    parse_seconds,
    parse_size,
    parse_target,
)
from v6fwd.model.nouns import (
    MAPPED_PREFIX,
    NO_NETNS,
    PSEUDO_WIDTHS,
    Address,
    Balance,
    ClientIP,
    Endpoint,
    Forward,
    Guard,
    InputError,
    IPNetwork,
    Limits,
    Mesh,
    OnOpaque,
    Protocol,
    RelayEngine,
    Transparent,
    TransparentFallback,
    UdpProxy,
    bracketed,
    ip_text,
    is_ip,
)

__all__ = [
    "MAPPED_PREFIX",
    "NO_NETNS",
    "PSEUDO_WIDTHS",
    "Address",
    "Balance",
    "ClientIP",
    "Endpoint",
    "Forward",
    "Guard",
    "IPNetwork",
    "InputError",
    "Limits",
    "Mesh",
    "OnOpaque",
    "Protocol",
    "RelayEngine",
    "Transparent",
    "TransparentFallback",
    "UdpProxy",
    "bracketed",
    "ip_text",
    "is_ip",
    "pair_up",
    "parse_listen",
    "parse_max_head",
    "parse_networks",
    "parse_rate",
    "parse_seconds",
    "parse_size",
    "parse_target",
    "refuse_misfits",
    "refuse_twins",
]
