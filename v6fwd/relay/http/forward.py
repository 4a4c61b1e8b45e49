"""An HTTP forward at work: a TCP forward whose flows are told what a request may be."""

from __future__ import annotations

from dataclasses import dataclass, field

from v6fwd.client_ip.http.syntax import HttpRefused, HttpRules
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.model import Address
from v6fwd.relay.http.flow import HttpFlow
from v6fwd.relay.tcp.flow import TcpFlow
from v6fwd.relay.tcp.forward import TcpForward

PARTING_TIME = 2.0
"""Seconds that a client has to read its last word and close; nginx waits 5 for each read."""


@dataclass(slots=True)
class HttpForward(TcpForward):
    """A Forward whose client-ip mode is an HTTP field."""

    rules: HttpRules = field(init=False)
    proxies: TrustedNetworks | None = field(init=False)

    def __post_init__(self) -> None:
        TcpForward.__post_init__(self)  # slots=True makes the class anew: super() knows the old one
        forward = self.forward
        self.needs_source = True
        self.rules = HttpRules(
            forward.client_ip,
            keep_underscores=forward.keep_underscores,
            on_opaque=forward.on_opaque,
        )
        networks = forward.trust_forwarded
        self.proxies = TrustedNetworks(networks) if networks else None

    def make_flow(self, fd: int, slot: int) -> TcpFlow:
        """See TcpForward."""
        return HttpFlow(self, fd, slot)

    def tell_refused(self, client: Address | None, refused: HttpRefused, opaque: str) -> None:
        """Log a request that was answered here; `opaque`: what was spoken instead of HTTP/1."""
        listen = self.forward.listen
        hint = f"; {opaque} needs --client-ip proxy-v2 or transparent" if opaque else ""
        self.resources.log.limited(
            f"http {listen} {opaque or refused.status}",
            "http-refused",
            f"refused {client} on {listen}: {refused.status}, {refused.why}{hint}",
            client=client,
            listen=listen,
            status=refused.status,
            why=refused.why,
        )

    def tell_bad_answer(self, why: str) -> None:
        """Log an answer of the target that cannot be passed on."""
        forward = self.forward
        self.resources.log.limited(
            f"answer {forward.listen}",
            "bad-answer",
            f"bad answer of {forward.target} for {forward.listen}: {why}",
            target=forward.target,
            listen=forward.listen,
            why=why,
        )
