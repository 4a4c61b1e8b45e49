"""The published ports of an Engine, served by the daemon in the shims' place.

A shim is answered as soon as it speaks: dockerd starts no container before. Its port is opened
when the mode is known, which is when the Engine tells of the container; whoever comes before
waits in the queue of the socket. So nobody is served in the wrong mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path

from v6fwd.config import Docker
from v6fwd.docker.direct_ports import DirectPorts
from v6fwd.docker.engine.client import EngineApi
from v6fwd.docker.engine.containers import Container, find_container
from v6fwd.docker.engine.watcher import Watcher
from v6fwd.docker.forwards import Forwards
from v6fwd.docker.ipv4_redirect import Ipv4Redirect
from v6fwd.docker.policy.modes import NEED_ALL, Modes
from v6fwd.docker.prestart import Prestart
from v6fwd.docker.shim.holder import find_holder
from v6fwd.docker.shim.listening import LISTEN_FD, from_descriptor, is_bound, own
from v6fwd.docker.shim.process import LET_GO, NoShimError, Shim, shims_of
from v6fwd.docker.shim.rendezvous import Rendezvous, run_folder
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward, Limits

HOLD = 5.0
"""Seconds that clients wait for the mode: an Engine that starts is asked in vain meanwhile."""
FREE_WITHIN = 2.0
"""Seconds that orphaned workers of a daemon that was killed may take to free a port."""


class Port:
    """A shim's forward, before and while it is served."""

    def __init__(self, shim: Shim, forward: Forward, sockets: list[socket.socket] | None) -> None:
        self.shim = shim
        self.forward = forward
        self.sockets = sockets
        self.is_open = False
        self.timer: asyncio.TimerHandle | None = None

    def forget(self) -> None:
        """Let go of what nobody serves."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.is_open:
            for sock in self.sockets or ():
                sock.close()


class Controller:
    """Meets the shims, asks the Engine, and opens and closes forwards accordingly."""

    def __init__(self, docker: Docker, limits: Limits, log: Log) -> None:
        self._limits = limits
        self._log = log
        self._modes = Modes(docker.rules, docker.transparent, log)
        self._ports: dict[Endpoint, Port] = {}
        self._shims: dict[int, Shim] = {}
        self._rendezvous = Rendezvous(run_folder(), self._heard)
        self._docker = docker
        self._watcher = self._watcher_of(docker.host)
        self._ipv4_redirect = Ipv4Redirect(log)
        self._prestart = Prestart(log)
        self._containers: Sequence[Container] = ()
        self._all_open = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    # -- the daemon's side --

    async def begin(self, supervisor: Forwards) -> None:
        """Take over the shims that live, and hear those that come. Raises RelayError."""
        self._supervisor = supervisor
        self._direct_ports = DirectPorts(supervisor, self._modes, self._limits, self._log)
        self._rendezvous.open(self._holder())
        await self._scan()
        self._watching = self._spawn(self._watcher.run())
        if self._ports:
            self._log.info("adopted", f"took over {len(self._ports)} published ports")
            with contextlib.suppress(TimeoutError):  # who comes meanwhile has HOLD of its own
                async with asyncio.timeout(HOLD):
                    await self._all_open.wait()
        self._divert()

    def _holder(self) -> Path | None:
        try:
            return find_holder()
        except RelayError as error:
            text = f"shims stand alone, with 15 MB a port: {error}"
            self._log.warning("no-holder", text)
            return None

    def endpoints(self) -> Collection[Endpoint]:
        """What is served for Docker."""
        return [
            *(listen for listen, port in self._ports.items() if port.is_open),
            *self._direct_ports,
        ]

    def reconfigure(self, docker: Docker) -> None:
        """Other rules: they go for new flows. And another Engine to be asked, perhaps."""
        self._modes.rules = docker.rules
        self._modes.transparent = docker.transparent
        before, self._docker = self._docker, docker
        if docker.host != before.host and self._watching is not None:
            self._watching.cancel()
            self._watcher = self._watcher_of(docker.host)
            self._watching = self._spawn(self._watcher.run())
        self._watcher.stir()

    def close(self, *, succeeded: bool) -> None:
        """Hear nobody any more. `succeeded`: another daemon goes on with the ports.

        So does one that we could not take over from.
        """
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        self._prestart.close()
        goes_on = self._rendezvous.close(self._shims) or succeeded
        self._ipv4_redirect.close(keep=goes_on)
        if self._ports and not goes_on:
            count = len(self._ports)
            text = f"{count} published ports wait for the next `v6fwd serve --docker`"
            self._log.warning("waiting", text)
        for port in self._ports.values():
            port.forget()
        for shim in self._shims.values():
            shim.close()
        self._ports.clear()
        self._shims.clear()

    # -- shims that come --

    def _heard(self, pid: int, started: int, stops: bool) -> None:
        known = self._shims.get(pid)
        if known is not None and known.has_ended():
            self._ended(known)
        try:
            if stops:
                self._let_go(self._shims.get(pid) or self._find(pid, started))
            elif pid not in self._shims:
                self._adopt(self._find(pid, started))
        except NoShimError:
            self._forget(pid)  # it has ended, or stands alone already
        except RelayError as error:
            self._refuse(pid, str(error))

    def _find(self, pid: int, started: int | None = None) -> Shim:
        shim = Shim.find(pid, self._rendezvous.rest, started)
        self._shims[pid] = shim
        shim.watch(lambda: self._ended(shim))
        return shim

    def _adopt(self, shim: Shim) -> None:
        """Answer dockerd, and hold the port until its mode is known. Raises RelayError."""
        forward = replace(shim.flags.forward, limits=self._limits)
        former = self._ports.get(forward.listen)
        if former is not None and former.shim.has_ended():
            self._ended(former.shim)
        self._direct_ports.close(forward.listen)
        if forward.listen in self._supervisor.forwards or forward.listen in self._ports:
            raise RelayError(f"{forward.listen} is forwarded already")
        sockets = self._sockets(shim, forward.listen)
        self._prestart.look()  # Engine 28 has made the namespace by now, and waits for us
        try:
            shim.answer(sockets[0] if sockets and not shim.flags.use_listen_fd else None)
        except BaseException as error:
            for sock in sockets or ():
                sock.close()
            if isinstance(error, OSError):
                raise RelayError(f"cannot answer for {forward.listen}: {error}") from error
            raise
        port = self._ports[forward.listen] = Port(shim, forward, sockets)
        self._all_open.clear()
        known = self._modes.remembered(forward) if self._watcher.is_lost else None
        if known is not None:
            self._serve(port, known)
        else:
            loop = asyncio.get_running_loop()
            port.timer = loop.call_later(HOLD, self._decide, port)

    def _sockets(self, shim: Shim, listen: Endpoint) -> list[socket.socket] | None:
        """None: a predecessor's are there. Raises RelayError."""
        if listen in self._supervisor.listen_sockets:
            return None
        try:
            fd = shim.take(LISTEN_FD)
        except OSError as error:
            if shim.flags.use_listen_fd:
                raise RelayError(f"cannot take the socket of {listen}: {error}") from error
            return [own(listen)]
        if not shim.flags.use_listen_fd and not is_bound(fd, listen):
            os.close(fd)
            return [own(listen)]
        return [from_descriptor(fd, listen)]

    def _refuse(self, pid: int, why: str) -> None:
        """Errors have one source: the shim tries by itself, and tells dockerd."""
        shim = self._shims.get(pid)
        if shim is not None:
            self._log.limited("refused", "not-adopted", f"a shim must stand alone: {why}")
            shim.tell(LET_GO)

    # -- shims that were here before --

    async def _scan(self) -> None:
        """Adopt whoever waits already; a port may be in use still by a dead daemon's workers."""
        until = asyncio.get_running_loop().time() + FREE_WITHIN
        for pid in shims_of(self._rendezvous.rest):
            while pid not in self._shims and not self._try(pid):
                if asyncio.get_running_loop().time() > until:
                    break
                await asyncio.sleep(0.02)

    def _try(self, pid: int) -> bool:
        """Whether there is nothing more to be done about it."""
        try:
            self._adopt(self._find(pid))
        except NoShimError:
            self._forget(pid)
        except RelayError:
            self._forget(pid)
            return False
        return True

    def _forget(self, pid: int) -> None:
        shim = self._shims.pop(pid, None)
        if shim is not None:
            shim.close()

    # -- shims that end --

    def _let_go(self, shim: Shim) -> None:
        """Free its port, then tell it; dockerd gives the port away when it has ended."""
        self._close_port(shim)
        self._spawn(self._tell_let_go(shim))

    async def _tell_let_go(self, shim: Shim) -> None:
        await self._supervisor.settled()
        if shim.pid in self._shims:
            shim.tell(LET_GO)

    def _ended(self, shim: Shim) -> None:
        self._close_port(shim)
        if self._shims.pop(shim.pid, None) is not None:
            shim.close()

    def _close_port(self, shim: Shim) -> None:
        """As docker-proxy does, its flows end with it: the container is gone."""
        listen = shim.flags.forward.listen
        port = self._ports.get(listen)
        if port is None or port.shim is not shim:
            return
        del self._ports[listen]
        port.forget()
        if port.is_open and listen in self._supervisor.forwards:
            self._supervisor.close(listen, 0)
        self._note_open()
        self._divert(at_once=False)

    # -- modes --

    def _watcher_of(self, host: str) -> Watcher:
        enters = self._modes.enters
        return Watcher(EngineApi(host), self._log, self._found, self._listed, self._changed, enters)

    def _found(self) -> None:
        self._direct_ports.forget()

    def _listed(self, containers: Sequence[Container]) -> None:
        """The Engine has told which containers there are."""
        prepares = self._docker.transparent_address
        self._prestart.expect(filter(self._modes.enters, containers) if prepares else ())

    def _changed(self, containers: Sequence[Container]) -> None:
        """The Engine has told which containers run."""
        self._containers = containers
        self._modes.keep(containers)
        self._prestart.run(containers)
        for port in list(self._ports.values()):
            if find_container(containers, port.forward) is not None:
                self._decide(port)
        self._direct_ports.follow(containers, self._ports)
        self._divert()

    def _decide(self, port: Port) -> None:
        """Serve it as its container wants it; without one, as far as rules tell."""
        container = find_container(self._containers, port.forward)
        self._serve(port, self._modes.of(port.forward, container))

    def _serve(self, port: Port, forward: Forward) -> None:
        if port.timer is not None:
            port.timer.cancel()
        try:
            if not port.is_open:
                self._supervisor.open(forward, port.sockets)
                port.is_open = True
            elif forward != port.forward:
                self._supervisor.change(forward)
        except (RelayError, KeyError) as error:  # drained by hand, or a file names it as well
            text = f"cannot serve {forward.listen}: {error}"
            self._log.limited("docker-port", "not-served", text)
        port.forward = forward
        self._note_open()

    def _note_open(self) -> None:
        if all(port.is_open for port in self._ports.values()):
            self._all_open.set()

    def _divert(self, *, at_once: bool = True) -> None:
        served = (port.forward for port in self._ports.values() if port.is_open)
        # A shim for IPv6 has a brother for IPv4, which is another forward.
        wanted = [
            forward.listen
            for forward in served
            if forward.client_ip in NEED_ALL and ":" not in forward.listen.host
        ]
        self._ipv4_redirect.want(wanted, at_once=at_once)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
