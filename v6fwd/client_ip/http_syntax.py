"""What the readers of HTTP share: the rules of a forward, verdicts, limits."""

from __future__ import annotations

import enum
from typing import NamedTuple

from v6fwd.model import ClientIP, OnOpaque


class Kind(enum.Enum):
    """What the reader of responses must know of a request."""

    PLAIN = "plain"
    HEAD = "head"
    CONNECT = "connect"
    UPGRADE = "upgrade"


class HttpRefused(NamedTuple):
    """Why a request is not let through: the status of the answer, and a short text."""

    status: int
    why: str


class HttpRules:
    """What one forward wants of HTTP; made once, never changed."""

    __slots__ = ("keep_underscores", "mode", "on_opaque")

    def __init__(
        self,
        mode: ClientIP,
        *,
        keep_underscores: bool = False,
        on_opaque: OnOpaque = OnOpaque.REFUSE,
    ) -> None:
        self.mode = mode
        self.keep_underscores = keep_underscores
        self.on_opaque = on_opaque
