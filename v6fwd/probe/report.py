"""What a probe found, as values and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from v6fwd.model import ClientIP, Endpoint, Protocol, UdpProxy
from v6fwd.probe.forms import Form
from v6fwd.probe.judge import Result, Verdict


@dataclass(frozen=True, slots=True)
class Tried:
    """One form, and what became of it."""

    form: Form
    verdict: Verdict
    client_seen: bool | None = None
    """Whether the answer shows the client; None where it shows nobody."""

    @property
    def is_accepted(self) -> bool:
        """Whether the server took it."""
        return self.verdict.result is Result.ACCEPTED


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest v2 header that was accepted, and the smallest that was not; 0: none was not."""

    accepted: int
    refused: int = 0

    def __str__(self) -> str:
        if not self.refused:
            return f"{self.accepted} bytes and more"
        if self.refused == self.accepted + 1:
            return f"{self.accepted} bytes"
        return f"{self.accepted} bytes, not {self.refused}"


@dataclass(frozen=True, slots=True)
class Choice:
    """The mode to use, None where none is known to work; `notes` are facts beside it."""

    mode: ClientIP | None
    why: str
    udp_proxy: UdpProxy = UdpProxy.EVERY
    notes: tuple[str, ...] = ()
    needs_attention: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was asked and answered."""

    target: Endpoint
    speaks: str
    opening: str
    client: str
    tried: tuple[Tried, ...]
    largest: Largest | None
    choice: Choice

    @property
    def command(self) -> str:
        """The command that uses the mode; "" without one."""
        if self.choice.mode is None:
            return ""
        slash = "" if self.target.protocol is Protocol.TCP else "/udp"
        words = f"v6fwd forward '[::]:{self.target.port}{slash}' '{_plain(self.target)}'"
        first = " --udp-proxy first" if self.choice.udp_proxy is UdpProxy.FIRST else ""
        return f"{words} --client-ip {self.choice.mode}{first}"

    @property
    def label(self) -> str:
        """The container's label for `serve --docker`; "" where there is none for it."""
        if self.choice.mode is None or self.choice.udp_proxy is UdpProxy.FIRST:
            return ""
        dash = "" if self.target.protocol is Protocol.TCP else "-udp"
        return f"v6fwd.client-ip.{self.target.port}{dash}={self.choice.mode}"

    def to_json(self) -> dict[str, Any]:
        """Stable keys: they are added to, and never change their meaning."""
        return {
            "target": str(self.target),
            "speaks": self.speaks,
            "opening": self.opening,
            "client": self.client,
            "forms": [_tried_json(each) for each in self.tried],
            "largest_header": self.largest.accepted if self.largest else None,
            "largest_refused": self.largest.refused or None if self.largest else None,
            "mode": self.choice.mode,
            "udp_proxy": self.choice.udp_proxy if self.target.protocol is Protocol.UDP else None,
            "why": self.choice.why,
            "command": self.command,
            "label": self.label,
            "notes": list(self.choice.notes),
            "needs_attention": self.choice.needs_attention,
        }


def by_name(tried: Iterable[Tried]) -> dict[str, Tried]:
    """The same, to be looked up."""
    return {each.form.name: each for each in tried}


def _plain(target: Endpoint) -> str:
    return str(target).removesuffix("/udp")


def _tried_json(tried: Tried) -> dict[str, Any]:
    return {
        "form": tried.form.name,
        "what": tried.form.what,
        "sent": tried.form.header.hex(),
        "result": tried.verdict.result,
        "answer": tried.verdict.answer,
        "client_seen": tried.client_seen,
    }
