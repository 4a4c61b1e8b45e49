"""An HTTP forward at work: a TCP forward, and what a request may be."""

from __future__ import annotations

from v6fwd.client_ip.budget import TimeBudget
from v6fwd.client_ip.http.exchange import Exchange
from v6fwd.client_ip.http.requests import RequestStream
from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.client_ip.http.syntax import HttpRefused, HttpRules
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.model import Address
from v6fwd.relay.http import native
from v6fwd.relay.targets.target import for_client
from v6fwd.relay.tcp.forward import TcpForward


class HttpForward:
    """A forward whose client-ip mode is an HTTP field."""

    __slots__ = ("_budget", "_proxies", "_rules", "request_side", "response_side", "tcp")

    def __init__(self, tcp: TcpForward) -> None:
        self.tcp = tcp
        forward = tcp.forward
        self._rules = HttpRules(
            forward.client_ip,
            keep_underscores=forward.keep_underscores,
            on_opaque=forward.on_opaque,
            max_head=forward.limits.max_head,
        )
        self._budget = TimeBudget(tcp.resources.reactor.clock)
        networks = forward.trust_forwarded
        self._proxies = TrustedNetworks(networks) if networks else None
        self.request_side, self.response_side = native.sides()

    def exchange(self, client: Address, destination: Address, *, secure: bool) -> Exchange:
        """Readers for a new client; `secure`: it spoke TLS to a proxy in front."""
        proxies, rules, budget = self._proxies, self._rules, self._budget
        trusted = proxies is not None and client.packed in proxies
        requests = RequestStream(
            rules, client, destination, trusted=trusted, secure=secure, budget=budget
        )
        return Exchange(requests, ResponseStream(budget, rules.max_head))

    def tell_refused(self, client: Address | None, refused: HttpRefused, opaque: str) -> None:
        """Log a request that was answered here; `opaque`: what was spoken instead of HTTP/1."""
        listen = self.tcp.forward.listen
        hint = f"; {opaque} needs --client-ip proxy-v2 or transparent" if opaque else ""
        self.tcp.resources.log.limited(
            f"http {listen} {opaque or refused.status}",
            "http-refused",
            f"refused {client} on {listen}: {refused.status}, {refused.why}{hint}",
            client=client,
            listen=listen,
            status=refused.status,
            why=refused.why,
        )

    def tell_bad_answer(self, client: Address | None, why: str) -> None:
        """Log an answer of the target that cannot be passed on."""
        forward = self.tcp.forward
        self.tcp.resources.log.limited(
            f"answer {forward.listen}",
            "bad-answer",
            f"bad answer of {forward.target} for {forward.listen}: {why}{for_client(client)}",
            client=client or "",
            target=forward.target,
            listen=forward.listen,
            why=why,
        )
