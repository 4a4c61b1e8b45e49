"""An alias of shim/standalone, for shims of release 0.1 that fall back to standalone mode.

A shell may still read that release's script when the package has been upgraded, and it imports this
module. To be removed with the release after 0.2.
"""

from __future__ import annotations

from v6fwd.docker.shim.standalone import main

__all__ = ["main"]
