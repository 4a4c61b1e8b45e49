"""The process that dockerd starts in place of docker-proxy, and the daemon's side of it.

`v6fwd-docker-proxy` is the script that dockerd starts, `flags` its flags, `hold/hold.c` what it
becomes while a daemon serves its port (`holder` finds the one for this machine), `standalone` the
relay that it becomes otherwise: `one_port` on a `small_loop` for TCP, `standalone_udp` for UDP. The
daemon meets shims in a folder (`rendezvous`), takes their descriptors (`process`) and uses their
sockets (`listening`). `published` reads from /proc which program serves each published port.
"""

import sys
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for a module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        from importlib import import_module

        return getattr(import_module(self.__name__), name)


if "inspect" not in sys.modules:  # 1.3 MB, which dataclasses needs for classes without a docstring
    sys.modules["inspect"] = _Later("inspect")
    import dataclasses  # noqa: F401

    del sys.modules["inspect"]
