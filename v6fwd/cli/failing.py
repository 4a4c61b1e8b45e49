"""How a command that serves ends when it cannot."""

from __future__ import annotations

import sys

from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model.lean import NoReturn


def fail(log: Log, error: RelayError) -> NoReturn:
    """Log why, with the process that has the port where that is the reason; exit with 1."""
    from v6fwd.docker.holder_container import container_of  # not before something failed
    from v6fwd.netns.owners import told

    log.error("failed", told(error, container_of))
    sys.exit(1)
