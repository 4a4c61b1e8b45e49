"""Whether the ring can be used here: by the module, by the kernel and by who may ask it."""

from __future__ import annotations

import errno
import os

from v6fwd.errors import reason
from v6fwd.log import Log
from v6fwd.model import RelayEngine
from v6fwd.model.lean import TYPE_CHECKING, dataclass
from v6fwd.relay.pairs.native import is_native

if TYPE_CHECKING:
    from v6fwd.relay.ring.native import Ring

ENVIRONMENT = "V6FWD_ENGINE"
"""Says what `auto` is, for tests and measurements."""
AUTO = RelayEngine.RING
"""Where flows can begin on the native epoll, which is better while little goes on."""
LEAST_KERNEL = (6, 1)
"""IORING_SETUP_DEFER_TASKRUN; it has what else is used, too."""
_SYSCTL = "/proc/sys/kernel/io_uring_disabled"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The engine of this process."""

    ring: Ring | None
    """None: epoll."""
    why: str = ""
    """Why there is no ring, where one would have been used."""
    wanted: bool = False
    """Whether one was asked for by name."""

    @property
    def name(self) -> str:
        """`ring` or `epoll`."""
        return str(RelayEngine.EPOLL if self.ring is None else RelayEngine.RING)


def choose(wanted: RelayEngine) -> Chosen:
    """Open a ring if one is to be used and can be had."""
    if wanted is RelayEngine.AUTO:
        wanted = RelayEngine(os.environ.get(ENVIRONMENT) or RelayEngine.AUTO)
    is_wanted = wanted is RelayEngine.RING
    if wanted is RelayEngine.AUTO:
        wanted = AUTO if is_native() else RelayEngine.EPOLL
    if wanted is not RelayEngine.RING:
        return Chosen(None)
    try:
        return Chosen(_open(), wanted=is_wanted)
    except _NoRingError as error:
        return Chosen(None, str(error), is_wanted)


def probe(wanted: RelayEngine) -> Chosen:
    """The same for workers, which have no privileges and open theirs; this ring is closed again."""
    chosen = choose(wanted)
    if chosen.ring is None:
        return chosen
    chosen.ring.close()
    return chosen if _disabled() == "0" else Chosen(None, _told_disabled(), chosen.wanted)


class _NoRingError(Exception):
    """Why there is none."""


def _open() -> Ring:
    """Open a ring. Raises _NoRingError."""
    if (version := _kernel(_release())) < LEAST_KERNEL:
        raise _NoRingError(f"Linux {'.'.join(map(str, version))} is older than 6.1")
    try:
        from v6fwd.relay.ring import _ring
    except ImportError:
        raise _NoRingError("the native module is not built or finds no liburing") from None
    try:
        return _ring.Ring()
    except OSError as error:
        raise _NoRingError(_why(error)) from None


def tell_engine(log: Log, chosen: Chosen) -> None:
    """Log why there is no ring: a warning where one was asked for, which is said as well."""
    text = f"engine: {chosen.name}"
    if chosen.why:
        text += f", no ring: {chosen.why}"
    if chosen.why and chosen.wanted:
        log.warning("engine", text, engine=chosen.name, why=chosen.why)
    elif chosen.why:
        log.info("engine", text, engine=chosen.name, why=chosen.why)
    elif chosen.wanted:
        log.info("engine", text, engine=chosen.name)


def _release() -> str:
    return os.uname().release


def _kernel(release: str) -> tuple[int, ...]:
    """The first two numbers of 6.18.4-arch1, or none. Without `re`: see model/lean."""
    words = [word.partition("-")[0].partition("+")[0] for word in release.split(".")[:2]]
    is_known = len(words) == 2 and all(word.isascii() and word.isdecimal() for word in words)
    return tuple(map(int, words)) if is_known else ()


def _why(error: OSError) -> str:
    if error.errno == errno.ENOMEM:  # of the user's limit, or of the machine
        return f"io_uring_setup: {reason(error)}: RLIMIT_MEMLOCK may be too low"
    if error.errno != errno.EPERM:
        return f"io_uring_setup: {reason(error)}"
    if _disabled() != "0":
        return _told_disabled()
    return "io_uring_setup is not permitted: a seccomp policy, of a container say"


def _disabled() -> str:
    """What the kernel's policy is; 1: only for the privileged and a group. Before Linux 6.6: 0."""
    try:
        with open(_SYSCTL) as file:
            return file.read().strip()
    except OSError:
        return "0"


def _told_disabled() -> str:
    return f"kernel.io_uring_disabled = {_disabled()}"
