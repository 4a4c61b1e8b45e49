"""The name by which shims of release 0.1 start a relay that stands alone.

A shim that was started before an upgrade has read that release's script, and imports this module
only when it must stand alone. To be removed with the release after 0.2.
"""

from __future__ import annotations

from v6fwd.docker.shim.standalone import main

__all__ = ["main"]
