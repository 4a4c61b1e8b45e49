"""What a check finds. Pure."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass


class Severity(enum.StrEnum):
    """How much it matters."""

    ERROR = "error"  # clients are not served
    WARNING = "warning"  # they are, but not seen, or not as safely as it looks
    NOTE = "note"  # worth to know; nothing needs to be done


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing: what was looked at, what is there, why it matters, what mends it.

    `mend` is a command, a line of a file or a label, ready to be used.
    """

    id: str
    severity: Severity
    looked_at: str
    found: str
    why: str
    mend: str

    def to_json(self) -> dict[str, str]:
        """Its fields are the keys."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NotLookedAt:
    """What could not be looked at, so that nothing is said about it."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, the gravest first, and what is left open."""

    findings: tuple[Finding, ...]
    not_looked_at: tuple[NotLookedAt, ...]

    @property
    def needs_attention(self) -> bool:
        """Whether there is more than notes."""
        return any(finding.severity is not Severity.NOTE for finding in self.findings)

    def to_json(self) -> dict[str, object]:
        """Stable keys."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "not_looked_at": [asdict(each) for each in self.not_looked_at],
            "needs_attention": self.needs_attention,
        }
