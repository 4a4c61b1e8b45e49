"""Whether the ring can be used here: by the module, by the kernel and by who may ask it."""

from __future__ import annotations

import errno
import os

from v6fwd.errors import reason
from v6fwd.log import Log
from v6fwd.model import RelayEngine
from v6fwd.model.lean import TYPE_CHECKING, dataclass
from v6fwd.model.patterns import Lazy

if TYPE_CHECKING:
    from v6fwd.relay.ring.native import Ring

ENVIRONMENT = "V6FWD_ENGINE"
"""Says what `auto` is, for tests and measurements."""
AUTO = RelayEngine.EPOLL
LEAST_KERNEL = (6, 1)
"""IORING_SETUP_DEFER_TASKRUN; it has what else is used, too."""
_RELEASE_RE = Lazy(r"(\d+)\.(\d+)")
_SYSCTL = "/proc/sys/kernel/io_uring_disabled"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The engine of this process."""

    ring: Ring | None
    """None: epoll."""
    why: str = ""
    """Why there is no ring, though one was wanted."""
    wanted: bool = False
    """Whether one was."""

    @property
    def name(self) -> str:
        """`ring` or `epoll`."""
        return str(RelayEngine.EPOLL if self.ring is None else RelayEngine.RING)


def choose(wanted: RelayEngine) -> Chosen:
    """Open a ring if one is wanted and can be had."""
    if wanted is RelayEngine.AUTO:
        wanted = RelayEngine(os.environ.get(ENVIRONMENT) or AUTO)
    if wanted is not RelayEngine.RING:
        return Chosen(None)
    if (version := _kernel(_release())) < LEAST_KERNEL:
        return _without(f"Linux {'.'.join(map(str, version))} is older than 6.1")
    try:
        from v6fwd.relay.ring import _ring
    except ImportError:
        return _without("the native module is not built or finds no liburing")
    try:
        return Chosen(_ring.Ring(), wanted=True)
    except OSError as error:
        return _without(_why(error))


def probe(wanted: RelayEngine) -> Chosen:
    """The same, with a ring that is closed again: workers open theirs."""
    chosen = choose(wanted)
    if chosen.ring is not None:
        chosen.ring.close()
    return chosen


def _without(why: str) -> Chosen:
    return Chosen(None, why, wanted=True)


def tell_engine(log: Log, chosen: Chosen) -> None:
    """Log which engine it is, if a ring was wanted, and why there is none."""
    text = f"engine: {chosen.name}"
    if chosen.why:
        log.warning("engine", f"{text}, no ring: {chosen.why}", engine=chosen.name, why=chosen.why)
    elif chosen.wanted:
        log.info("engine", text, engine=chosen.name)


def _release() -> str:
    return os.uname().release


def _kernel(release: str) -> tuple[int, ...]:
    found = _RELEASE_RE.match(release)
    return tuple(map(int, found.groups())) if found else ()


def _why(error: OSError) -> str:
    if error.errno != errno.EPERM:
        return f"io_uring_setup: {reason(error)}"
    try:
        with open(_SYSCTL) as file:
            disabled = file.read().strip()
    except OSError:
        disabled = "0"
    if disabled != "0":
        return f"kernel.io_uring_disabled = {disabled}"
    return "io_uring_setup is not permitted: a seccomp policy, of a container say"
