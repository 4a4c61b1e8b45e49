"""The order of a probe's questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from v6fwd.model import Endpoint, Protocol
from v6fwd.probe.choose import EVERY, FIELD, FIRST, choose, choose_udp
from v6fwd.probe.exchange import Asker
from v6fwd.probe.forms import CLIENT, MAX_V2, Form, Named, no_header, padded, v1, v2, variants
from v6fwd.probe.judge import (
    Heard,
    Result,
    Verdict,
    client_shown,
    is_protocol,
    judge,
    legible,
    unless_passed_over,
)
from v6fwd.probe.openings import (
    CLIENT_FIRST,
    HINTS,
    MARK,
    Opening,
    dns_query,
    greeting_of,
    guesses,
    opening,
)
from v6fwd.probe.report import Choice, Largest, Report, Tried, by_name

PATIENCE = {Protocol.TCP: 3.0, Protocol.UDP: 1.0}
"""Seconds for one answer: over UDP silence is an answer, too, and common."""
GREETED_WITHIN = 1.0
"""Seconds for a greeting on ports where the client most often speaks first."""
_RUNGS = (52, 107, 128, 216, 232, 256, 512, 536, 1024, 2048, 4096, 8192, 16384, 32768, MAX_V2)
"""Sizes of a header that servers are known to stop at, and others between."""
_UDP_RUNGS = (52, 107, 128, 256, 512, 600, 1024, 1400)
"""The same for datagrams, which should fit into a packet with what follows the header."""

_EXACT_BELOW = 4096
"""Bytes; of longer headers nobody needs to know more, and they depend on how a server reads."""
_ONE_PACKET = 1200
"""Bytes that go in one packet with what follows, over whatever link."""

_LISTEN = Opening("", b"", "nothing", server_first=True)
_UNKNOWN = Choice(None, "nothing that was sent was answered in a protocol that is known",
                  needs_attention=True)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may say: "" for what is to be found out."""

    speaks: str = ""
    client: str = ""
    host: str = ""
    path: str = "/"
    patience: float = 0.0


def probe(target: Endpoint, options: Options) -> Report:
    """Ask the server all there is to ask. Raises ProbeError."""
    patience = options.patience or PATIENCE[target.protocol]
    asker = Asker(target, patience)
    kind = _UdpProbe if target.protocol is Protocol.UDP else _TcpProbe
    return kind(asker, options).report()


class _Probe:
    """What both transports share."""

    def __init__(self, asker: Asker, options: Options) -> None:
        self.asker = asker
        self.target = asker.target
        self.options = options
        self.named = Named(options.client or CLIENT, self.target.port)
        self.notes: list[str] = []

    def _use_own_address(self, is_accepted: Callable[[], bool]) -> None:
        """An access list may know nobody of the documentation's range: name ourselves, then."""
        if self.options.client or is_accepted():
            return
        usual = self.named
        self.named = replace(usual, client=self.asker.own)
        if is_accepted():
            self.notes.append(f"headers name {self.named.client}: {usual.client} was not accepted")
        else:
            self.named = usual

    def _report(
        self, asked: Opening, tried: Sequence[Tried], largest: Largest | None, choice: Choice
    ) -> Report:
        choice = replace(choice, notes=(*choice.notes, *self.notes))
        client = self.named.text
        return Report(
            self.target, asked.name or "unknown", asked.shown, client, tuple(tried), largest, choice
        )


class _TcpProbe(_Probe):
    def report(self) -> Report:
        asked = self._discover()
        if asked is None:
            return self._report(_LISTEN, (), None, _UNKNOWN)
        self._use_own_address(lambda: self._may_read(asked))
        forms = [no_header(), v1(self.named), v2(self.named)]
        tried = [self._try(form, asked) for form in (*forms, *variants(self.named, Protocol.TCP))]
        known = by_name(tried)
        if asked.forwarded is not None and known["none"].is_accepted:
            tried.append(self._field(asked))
        largest = None
        if known["v2"].is_accepted:
            largest = find_largest(lambda size: self._takes(size, asked), _RUNGS)
        return self._report(asked, tried, largest, choose(by_name(tried)))

    def _discover(self) -> Opening | None:
        """What the port speaks: from its greeting, else by trying."""
        if self.options.speaks:
            return self._opening(self.options.speaks)
        greeting = self._greeting()
        if greeting is not None:
            return self._opening(greeting)
        maybe = None
        for name in guesses(self.target.port):
            asked = self._opening(name)
            for form in (no_header(), v2(self.named), v1(self.named)):
                heard = self.asker.tcp(form, asked, GREETED_WITHIN)
                if is_protocol(name, heard):
                    maybe = maybe or asked
                    if judge(name, heard).result is Result.ACCEPTED:
                        return asked
        return maybe

    def _greeting(self) -> str | None:
        """Some servers greet at once, others when they have read a header."""
        hint = HINTS.get(self.target.port, "http")
        patience = GREETED_WITHIN if hint in CLIENT_FIRST else self.asker.patience
        for form in (no_header(), v2(self.named), v1(self.named)):
            heard = self.asker.tcp(form, _LISTEN, patience)
            name = greeting_of(heard.greeting, self.target.port)
            if name is not None or (not form.header and heard.greeting):
                return name
            if form.header and hint in CLIENT_FIRST:
                break  # one header is enough where a greeting is unlikely
        return None

    def _opening(self, name: str) -> Opening:
        host = self.options.host or self.target.host
        return opening(name, host, self.target.port, self.options.path)

    def _try(self, form: Form, asked: Opening) -> Tried:
        heard = legible(asked.name, self.asker.tcp(form, asked))
        verdict = judge(asked.name, heard)
        seen = self._seen(form, verdict, heard)
        if asked.name == "irc" and form.header.startswith(b"PROXY "):
            verdict = unless_passed_over(verdict, seen)
        return Tried(form, verdict, seen if verdict.result is Result.ACCEPTED else None)

    def _seen(self, form: Form, verdict: Verdict, heard: Heard, mark: str = "") -> bool | None:
        if verdict.result is not Result.ACCEPTED or not form.client:
            return None
        return client_shown(heard, form.client, self.asker.own, mark)

    def _may_read(self, asked: Opening) -> bool:
        """Whether another address in the header could change anything: not if it is not read."""
        heard = self.asker.tcp(v2(self.named), asked)
        is_read = judge(asked.name, heard).result is Result.ACCEPTED
        return is_read or (asked.name == "http" and bool(heard.data))

    def _field(self, asked: Opening) -> Tried:
        assert asked.forwarded is not None
        form = Form(FIELD, b"", "X-Forwarded-For in the request", client=self.named.text)
        changed = replace(asked, send=asked.forwarded(self.named.text))
        heard = self.asker.tcp(form, changed)
        verdict = judge(asked.name, heard)
        return Tried(form, verdict, self._seen(form, verdict, heard, MARK))

    def _takes(self, size: int, asked: Opening) -> bool:
        """A header of several packets may reach a server in two reads, which some refuse."""
        form = Form(f"v2-{size}", padded(self.named, size), "")
        tries = 1 if size <= _ONE_PACKET else 3
        return any(self._try(form, asked).is_accepted for _ in range(tries))


class _UdpProbe(_Probe):
    def report(self) -> Report:
        asked = dns_query(Protocol.UDP)
        self._use_own_address(lambda: self._accepts(v2(self.named, Protocol.UDP).header))
        tried = [self._try(form, [form.header]) for form in self._forms()]
        with_header = v2(self.named, Protocol.UDP).header
        tried.append(self._try(Form(EVERY, with_header, "a header in both of two datagrams"),
                               [with_header, with_header]))  # fmt: skip
        tried.append(self._try(Form(FIRST, with_header, "a header in the first of two datagrams"),
                               [with_header, b""]))  # fmt: skip
        largest = None
        if by_name(tried)["v2"].is_accepted:
            largest = find_largest(self._takes, _UDP_RUNGS, is_exact=False)
        choice = choose_udp(by_name(tried))
        if not any(each.is_accepted for each in tried):
            choice = replace(choice, why=f"{choice.why}; over UDP a probe speaks DNS alone")
        return self._report(asked, tried, largest, choice)

    def _forms(self) -> list[Form]:
        return [
            no_header(),
            v1(self.named),
            v2(self.named, Protocol.UDP),
            *variants(self.named, Protocol.UDP),
        ]

    def _try(self, form: Form, headers: Sequence[bytes]) -> Tried:
        """Accepted if the last datagram was answered."""
        query = dns_query(Protocol.UDP).send
        heard = self.asker.udp([header + query for header in headers])
        return Tried(form, judge("dns", heard[-1]))

    def _accepts(self, header: bytes) -> bool:
        return self._try(Form("", header, ""), [header]).is_accepted

    def _takes(self, size: int) -> bool:
        return self._accepts(padded(self.named, size, Protocol.UDP))


def find_largest(
    takes: Callable[[int], bool], rungs: Sequence[int], *, is_exact: bool = True
) -> Largest:
    """The largest size taken, where rungs[0] is; bisects the rungs, then what is between two."""
    if takes(rungs[-1]):
        return Largest(rungs[-1])
    low, high = 0, len(rungs) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(rungs[middle]) else (low, middle)
    accepted, refused = rungs[low], rungs[high]
    if not takes(accepted + 1):  # most limits are on a rung
        return Largest(accepted, accepted + 1)
    if accepted >= _EXACT_BELOW:
        return Largest(accepted, refused)
    accepted += 1
    while is_exact and refused - accepted > 1:
        size = (accepted + refused) // 2
        accepted, refused = (size, refused) if takes(size) else (accepted, size)
    return Largest(accepted, refused)
