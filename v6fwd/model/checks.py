"""Refuses forwards that contradict each other or themselves."""

from __future__ import annotations

from collections.abc import Sequence

from v6fwd.model.nouns import NO_NETNS, ClientIP, Endpoint, Forward, InputError, Protocol


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
    """Raise InputError if options of a forward do not go together."""
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
        if forward.pass_tlvs and (
            forward.client_ip is not ClientIP.PROXY_V2 or forward.protocol is Protocol.UDP
        ):
            raise InputError(
                f"{forward.listen}: pass-tlvs goes with proxy-v2 over TCP, not with"
                f" {forward.client_ip} over {forward.protocol.upper()}"
            )
        _refuse_transparent(forward)


def _refuse_transparent(forward: Forward) -> None:
    """Raise InputError if options of mode `transparent` do not fit mode or target."""
    target, netns = forward.target, forward.transparent.netns
    if forward.client_ip is not ClientIP.TRANSPARENT:
        if netns:
            raise InputError(
                f"{forward.listen}: target-netns goes with transparent, not with"
                f" {forward.client_ip}"
            )
    elif target.path:
        raise InputError(f"{target}: a unix socket shows no client address; transparent needs IP")
    elif netns not in ("", NO_NETNS) and target.container:
        raise InputError(f"{target}: leave target-netns out; a container's own is found with it")
    elif netns not in ("", NO_NETNS) and (target.is_name or "%" in target.host):
        raise InputError(
            f"{target}: with target-netns write the container's own address, as in 172.17.0.2:80"
        )
