"""What `v6fwd forward` does once its command line is read."""

from __future__ import annotations

from collections.abc import Sequence

from v6fwd.errors import RelayError, reason
from v6fwd.log import Log, LogFormat, keep_standard_descriptors
from v6fwd.model import Forward, Limits, RelayEngine
from v6fwd.model.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from v6fwd.relay.targets.source import TargetSource


def serve_here(
    forwards: Sequence[Forward],
    limits: Limits,
    *,
    log_flows: bool,
    log_format: LogFormat,
    engine: RelayEngine,
) -> None:
    """Serve in the foreground until a signal; exit with 1 if that fails."""
    from v6fwd.relay.life.alone import needs_no_asyncio  # a command line that is wrong needs none

    keep_standard_descriptors()
    log = Log(log_format)
    run = _run_alone if needs_no_asyncio(forwards) else _run_on_asyncio
    try:
        run(forwards, limits, log, log_flows, engine)
    except RelayError as error:
        from v6fwd.cli.failing import fail

        fail(log, error)


def _run_alone(
    forwards: Sequence[Forward], limits: Limits, log: Log, log_flows: bool, engine: RelayEngine
) -> None:
    """Raises RelayError."""
    from v6fwd.relay.life.alone import Alone
    from v6fwd.relay.targets.bridges import on_bridges, tell_bridges

    try:
        relay = Alone(forwards, limits, log, log_flows=log_flows, engine=engine)
    except OSError as error:
        raise RelayError(f"cannot start: {reason(error)}") from error
    try:
        found = on_bridges(forwards)  # by sockets that are closed before `ready`
        relay.run(lambda: tell_bridges(found, log))
    finally:
        relay.close()


def _run_on_asyncio(
    forwards: Sequence[Forward], limits: Limits, log: Log, log_flows: bool, engine: RelayEngine
) -> None:
    """Raises RelayError."""
    from v6fwd.relay.event_loop import new_event_loop
    from v6fwd.relay.foreground import run

    run(
        forwards,
        limits,
        log,
        log_flows=log_flows,
        loop_factory=new_event_loop,
        targets=_targets(forwards, log),
        engine=engine,
    )


def _targets(forwards: Sequence[Forward], log: Log) -> TargetSource | None:
    """What follows containers, if one is a target."""
    if not any(forward.target.container for forward in forwards):
        return None
    from v6fwd.config import Docker
    from v6fwd.docker.targets import ContainerTargets

    return ContainerTargets(Docker().host, log)
