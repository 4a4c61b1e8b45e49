"""The life of the daemon: start or takeover, ready, reload, drain."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6fwd import __version__
from v6fwd.config import Config, ConfigError, load
from v6fwd.daemon.ban_journal import give_journal, journal_path
from v6fwd.daemon.bans import Banning
from v6fwd.daemon.control import Control
from v6fwd.daemon.control_folder import give_folder
from v6fwd.daemon.diff import ForwardDiff
from v6fwd.daemon.privileges import NET_BIND_SERVICE, NOBODY, become, needed_by
from v6fwd.daemon.reloads import Reloads
from v6fwd.daemon.requests import Requests
from v6fwd.daemon.sources import EngineTargets, ForwardSource, Targets, passing
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.daemon.systemd import Notifier, inherited_sockets, match
from v6fwd.daemon.takeover import Predecessor
from v6fwd.daemon.usage import measured
from v6fwd.errors import RelayError, reason
from v6fwd.log import Log, attempt, in_background, log_exceptions
from v6fwd.model import Endpoint, Forward, RelayEngine
from v6fwd.relay.budget import raised_limit
from v6fwd.relay.life.process import ignore_stray_signals
from v6fwd.relay.life.signals import Signals
from v6fwd.relay.pairs.native import is_native
from v6fwd.relay.ready import ready_text, tell_ready
from v6fwd.relay.ring.choose import probe, tell_engine
from v6fwd.relay.targets.loops import is_local_address

if TYPE_CHECKING:
    from v6fwd.daemon.web import WebServer

AT_RUN_TIME = ("forwards", "docker")
"""The settings that a reload applies; the others wait for the next start."""


class Daemon:
    """The supervisor, its control socket and its configuration, on a running event loop.

    Large because the parts of the daemon meet in its life: start, takeover, reload, drain, stop.
    Each part has a class of its own.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        log: Log,
        sources: Sequence[ForwardSource] = (),
        targets: EngineTargets | None = None,
        *,
        needs_file: bool = True,
    ) -> None:
        self._path = path
        self._needs_file = needs_file
        self._targets = Targets(targets, log)
        self._sources = sources
        self._config = config
        self._log = log
        self._since = time.time()
        self._configured: dict[Endpoint, Forward] = {}
        self._reloads = Reloads()
        self.reloaded = ""
        """What the last reload has changed."""
        self._engine = probe(config.engine)
        self.supervisor = Supervisor(
            config.workers,
            config.limits,
            log,
            log_flows=config.log_flows,
            engine=RelayEngine.EPOLL if self._engine.why else config.engine,
        )
        control = config.control
        self._bans = Banning(
            self.supervisor, journal_path(control.socket), log, partial(passing, sources)
        )
        self._requests = Requests(self, self._bans)
        self._control = Control(control.socket, control.group, self._requests.answer)
        self._stopping: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._kept: list[Endpoint] = []
        self._notifier = Notifier(os.environ)
        self._web = self._web_server()

    async def run(self) -> None:
        """Run from start to end. Raises RelayError."""
        self._obey_signals()
        alive = in_background(self._tell_the_watchdog(), "watchdog")
        try:
            await self._begin()
            grace = await self._stopping
            self._close()
            self._log.info("stopping", f"stopping: flows have {grace:g} s to finish")
            await self.supervisor.drain(grace, keeps=self._kept)
            self._log.info("stopped", "stopped")
        finally:
            alive.cancel()
            attempt(self._close)
            self.supervisor.pool.kill()

    def _close(self) -> None:
        """Close the control socket and the pages, and stop the sources."""
        attempt(self._control.close)
        attempt(self._bans.close)
        if self._web is not None:
            attempt(self._web.close)
        attempt(self._targets.close)
        for source in self._sources:
            attempt(partial(source.close, succeeded=bool(self._kept)))

    async def _begin(self) -> None:
        """Take the sockets over or open them, start the workers, report ready."""
        path = self._config.control.socket
        predecessor = Predecessor.at(path, self._trusted_users()) if path else None
        if predecessor is not None:
            for listen, sockets in predecessor.sockets().items():
                self.supervisor.listen_sockets.add(listen, sockets)
        self._take_from_systemd()
        self._apply(self._config.forwards)
        await self._open_metrics(predecessor)
        if self._config.user:
            self._become(self._config.user)
        elif not os.geteuid():
            self._log.info("workers-user", f"workers run as user {NOBODY}: no user is configured")
        await self._targets.begin(self._forwards_now, self.supervisor.change)
        if path:
            self._bans.load(beside=predecessor is not None)
        self.supervisor.start()
        for source in self._sources:
            await source.begin(self.supervisor)
        self._close_inherited()
        await self.supervisor.settled()
        if path:
            self._control.open()
        if predecessor is not None:
            # No request is answered between this and the control socket's opening.
            await self._bans.succeed(predecessor.leave(self.supervisor.forwards))
        tell_ready(self._log, self._ready_text(), self.supervisor.forwards.values())
        tell_engine(self._log, self._engine)
        self._targets.tell(self._config.forwards)
        self._notifier.ready(self._ready_text())

    def _forwards_now(self) -> list[Forward]:
        forwards = self.supervisor.forwards
        return [forwards[listen] for listen in self._configured if listen in forwards]

    def _trusted_users(self) -> set[int]:
        """Return the users whose daemon may hand us its sockets."""
        user = self._config.user
        return {0, os.geteuid()} | ({pwd.getpwnam(user).pw_uid} if user else set())

    def _close_inherited(self) -> None:
        """Close the predecessor's sockets that no forward needs."""
        for listen, _ in [*self.supervisor.listen_sockets]:
            if listen not in self.supervisor.forwards:
                self.supervisor.listen_sockets.close(listen)

    def _ready_text(self) -> str:
        return ready_text(len(self._configured))

    def _become(self, user: str) -> None:
        """Give up root: every socket is open. A reload may open a port below 1024.

        Helpers are forked from here on, so the capabilities that they need are kept.
        """
        if socket := self._config.control.socket:
            give_folder(socket, user)
            give_journal(journal_path(socket), user, self._log)
        become(user, keep={NET_BIND_SERVICE} | needed_by(self._configured.values()))

    # -- systemd and Prometheus --

    def _take_from_systemd(self) -> None:
        """Hold the sockets that systemd passed."""
        listens = [forward.listen for forward in self._config.forwards]
        sockets, warnings = match(inherited_sockets(os.environ), listens)
        for text in warnings:
            self._log.warning("unused-socket", text)
        for listen, some in sockets.items():
            if (
                listen not in self.supervisor.listen_sockets
            ):  # else a predecessor's, which it has too
                self.supervisor.listen_sockets.add(listen, some)

    async def _open_metrics(self, predecessor: Predecessor | None) -> None:
        listen = self._config.metrics.listen
        if self._web is None or listen is None:
            return
        await self._web.open(beside=bool(predecessor and predecessor.shares_metrics(listen)))

    async def _tell_the_watchdog(self) -> None:
        while self._notifier.watchdog_interval is not None:
            attempt(self._notifier.watchdog)
            await asyncio.sleep(self._notifier.watchdog_interval)

    def _web_server(self) -> WebServer | None:
        metrics = self._config.metrics
        if metrics.listen is None:
            return None
        from v6fwd.daemon.metrics import pages  # 2.6 MB that nobody else needs
        from v6fwd.daemon.web import WebServer

        pool = self.supervisor.pool
        shown = pages(self._measured, lambda: pool.trouble)
        if not metrics.status_page:
            return WebServer(metrics.listen, shown, self._log)
        from v6fwd.daemon.view.serving import status_server

        return status_server(
            metrics, shown, self.status, self.supervisor, self._log, self._requests.change
        )

    # -- signals --

    def _obey_signals(self) -> None:
        """SIGTERM and SIGQUIT drain, SIGINT too within a shorter time; SIGHUP reloads."""
        ignore_stray_signals()
        add, limits = Signals(asyncio.get_running_loop().add_reader).add, self._config.limits
        add(signal.SIGTERM, partial(self.stop, limits.drain_timeout))
        add(signal.SIGINT, partial(self.stop, limits.interrupt_timeout))
        add(signal.SIGQUIT, partial(self.stop, limits.drain_timeout))
        add(signal.SIGHUP, self.reload)

    def stop(self, grace: float) -> None:
        """Stop accepting and let flows finish for `grace` seconds. A second call stops at once."""
        if not self._stopping.done():
            if not self._kept:  # else the service goes on, with our successor
                self._notifier.stopping("draining")
            self._stopping.set_result(grace)
        else:
            self.supervisor.pool.hurry()

    # -- reload --

    def reload(self) -> list[str]:
        """Read the configuration and apply what has changed; return the errors, if any.

        An invalid configuration changes nothing.
        """
        self._notifier.reloading()
        try:
            errors = self._reload()
            self._reloads.note(succeeded=not errors)
            return errors
        finally:
            self._notifier.ready(self._ready_text())

    def _reload(self) -> list[str]:
        try:
            config = load(
                self._path, may_be_missing=not self._needs_file, is_local=is_local_address
            )
            diff = self._apply(config.forwards)
        except (ConfigError, RelayError) as error:
            text = _told(error)
            lines = text.splitlines()
            for line in lines:
                self._log.error("reload-refused", f"not reloaded: {line}")
            return lines
        self._tell_what_waits(config)
        self._config = replace(self._config, forwards=config.forwards, docker=config.docker)
        self._targets.follow(config.docker.host)
        self._targets.tell(diff.new)
        for source in self._sources:
            source.reconfigure(config.docker)
        self.reloaded = f"reloaded: {diff}"
        self._log.info("reloaded", self.reloaded)
        return []

    def _apply(self, forwards: Iterable[Forward]) -> ForwardDiff:
        diff = ForwardDiff.between(self._configured, forwards)
        self.supervisor.apply(self._targets.resolved(diff))
        for listen in diff.gone:
            del self._configured[listen]
        self._configured |= {forward.listen: forward for forward in (*diff.new, *diff.changed)}
        return diff

    def _tell_what_waits(self, config: Config) -> None:
        for field in fields(Config):
            if field.name in AT_RUN_TIME:
                continue
            if getattr(config, field.name) != getattr(self._config, field.name):
                name = field.name.replace("_", "-")
                self._log.warning("waits", f"{name} has changed: that waits for the next start")

    # -- what requests need; see Life --

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more clients."""
        return self._stopping.done()

    def leave(self, kept: list[Endpoint], successor: int) -> None:
        """Stop, as a process with this id goes on with the endpoints in `kept`."""
        self._kept = kept
        self._notifier.successor(successor)
        self.stop(self._config.limits.drain_timeout)

    def close(self, endpoints: Iterable[Endpoint]) -> None:
        """Close forwards until the next reload."""
        for endpoint in endpoints:
            self._configured.pop(endpoint, None)
            self.supervisor.close(endpoint)

    async def status(self) -> dict[str, Any]:
        """The answer to `status`."""
        pool = self.supervisor.pool
        more: dict[str, list[Any]] = {}
        for source in self._sources:
            more |= source.report()
        return more | {
            "version": __version__,
            "pid": os.getpid(),
            "since": self._since,
            "restarts": pool.restarts,
            "engine": self._engine.name,
            "no_ring": self._engine.why,
            "native": is_native(),
            "reloads": self._reloads.report(),
            "bans": len(self.supervisor.bans),
            **await self.supervisor.status(),
            "held": [each for source in self._sources for each in source.held()],
            "done": True,
        }

    async def _measured(self) -> dict[str, Any]:
        """The status, and what each process takes: too costly where nobody asks for it."""
        return await self.status() | {"processes": measured(self.supervisor.pool.usage())}


def _told(error: Exception) -> str:
    """Its text; of a port that is taken, who has it."""
    if not isinstance(error, RelayError):
        return str(error)
    from v6fwd.netns.owners import told  # 0.3 MB that most daemons never need

    return told(error)


def serve(
    path: Path,
    config: Config,
    log: Log,
    sources: Sequence[ForwardSource] = (),
    targets: EngineTargets | None = None,
    *,
    needs_file: bool = True,
) -> None:
    """Serve until SIGINT or SIGTERM, or until a successor takes over. Raises RelayError.

    `needs_file`: a reload without the file at `path` is refused.
    """

    async def main() -> None:
        log_exceptions(asyncio.get_running_loop(), log)
        await Daemon(path, config, log, sources, targets, needs_file=needs_file).run()

    raised_limit()  # a socket a forward, and of UDP one a worker
    try:
        with asyncio.Runner() as runner:
            # Not `run`, whose handler of SIGINT we would replace at once.
            runner.get_loop().run_until_complete(main())
    except OSError as error:
        raise RelayError(f"cannot start: {reason(error)}") from error
