"""For our versions of docker-proxy's own tests: what they share, whatever the protocol."""

from __future__ import annotations

import pytest

MESSAGE = b"Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo"

every_path = pytest.mark.parametrize(
    ("listen", "client", "host"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "::1", "::1"),
        ("::", "127.0.0.1", "::1"),
        ("::", "::1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "DualStack", "6to4", "Any4"],
)
"""Where a relay listens, from where its client comes, and where its target is."""
