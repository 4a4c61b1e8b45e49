"""The supervisor: holds the listening sockets and tells the workers what to serve."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from v6fwd.daemon.diff import ForwardDiff
from v6fwd.daemon.handle import WorkerHandle
from v6fwd.daemon.listen_sockets import ListenSockets, Sockets, serves
from v6fwd.daemon.messages import Change, Close, Open
from v6fwd.daemon.pool import WorkerPool
from v6fwd.daemon.worker import Setup
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward, Limits, RelayEngine
from v6fwd.relay.counters import Counters, Snapshot, added
from v6fwd.relay.limits.bans import BanTable
from v6fwd.relay.targets.mismatch import Mismatches, forward_at


class Supervisor:
    """Opens, changes and closes forwards at run time, on a running event loop.

    Raises RelayError where it cannot listen, and KeyError for forwards that are not there.
    """

    def __init__(
        self,
        workers: int,
        limits: Limits,
        log: Log,
        *,
        log_flows: bool = False,
        engine: RelayEngine = RelayEngine.AUTO,
    ) -> None:
        self.limits = limits
        self.listen_sockets = ListenSockets(workers)
        self.forwards: dict[Endpoint, Forward] = {}
        self.since: dict[Endpoint, float] = {}
        """When each of them was opened, in seconds since 1970."""
        self.bans = BanTable(time.time)
        setup = Setup(limits, log, log_flows, workers, self.bans, engine)
        self._mismatches = Mismatches(log, self._forward_at)
        self.pool = WorkerPool(workers, setup, log, self._brief, self._mismatches.note)
        self._log = log

    def start(self) -> None:
        """Fork the workers, which serve the forwards opened so far. Raises OSError."""
        self.pool.start()

    async def settled(self) -> None:
        """Wait until every worker has processed all messages sent so far."""
        await self.pool.ask("settled")

    # -- forwards --

    def open(self, forward: Forward, sockets: Sockets | None = None) -> None:
        """Serve one more forward; `sockets` if somebody else has opened them, one a shard."""
        if sockets is not None:
            self.listen_sockets.add(forward.listen, sockets)
        self.apply(ForwardDiff((forward,), (), ()))

    def change(self, forward: Forward) -> None:
        """Apply a changed forward to new flows."""
        self.apply(ForwardDiff((), (forward,), ()))

    def close(self, listen: Endpoint, grace: float | None = None) -> None:
        """Stop to listen, and let the flows there finish; for `grace` seconds, if it is given.

        With 0 the port is free when `settled` returns: who waits in the queue is reset.
        """
        self._close(listen, grace)

    def apply(self, diff: ForwardDiff) -> None:
        """Apply all of it, or nothing if a socket cannot be opened."""
        for forward in diff.new:
            if forward.listen in self.forwards:
                target = self.forwards[forward.listen].target
                raise RelayError(f"{forward.listen} is forwarded to {target} already")
        self.listen_sockets.open_all(forward.listen for forward in diff.new)
        for listen in diff.gone:
            self._close(listen)
        for forward in diff.changed:
            self._change(forward)
        for forward in diff.new:
            self._open(forward)

    def _open(self, forward: Forward) -> None:
        self.forwards[forward.listen] = forward
        self.since[forward.listen] = time.time()
        for worker, handle in self.pool.workers.items():
            self._hand_over(forward, worker, handle)

    def _hand_over(self, forward: Forward, worker: int, handle: WorkerHandle) -> None:
        for shard, sock in enumerate(self.listen_sockets[forward.listen]):
            if serves(forward.listen, shard, worker, self.pool.count):
                handle.send(Open(forward, shard), sock)

    def _change(self, forward: Forward) -> None:
        self._mismatches.forget(str(forward.listen))
        self.forwards[forward.listen] = forward
        for shard, worker in self._shards(forward.listen):
            worker.send(Change(forward, shard))

    def _close(self, listen: Endpoint, grace: float | None = None) -> None:
        """The workers hold the last copies: they serve the clients that are still queued."""
        grace = self.limits.drain_timeout if grace is None else grace
        shards = self._shards(listen)
        self.listen_sockets.close(listen)
        del self.forwards[listen], self.since[listen]
        self.pool.retired.pop(str(listen), None)
        self._mismatches.forget(str(listen))
        for shard, worker in shards:
            worker.send(Close(listen, shard, grace, take_queue=grace > 0))

    def _shards(self, listen: Endpoint) -> list[tuple[int, WorkerHandle]]:
        """Return the shards of a forward with the workers that serve them."""
        return [
            (shard, handle)
            for shard, _ in enumerate(self.listen_sockets[listen])
            for worker, handle in self.pool.workers.items()
            if serves(listen, shard, worker, self.pool.count)
        ]

    def _brief(self, worker: int, handle: WorkerHandle) -> None:
        """Send a new worker all forwards."""
        for forward in self.forwards.values():
            self._hand_over(forward, worker, handle)

    # -- what may be asked --

    def _forward_at(self, listen: str) -> Forward | None:
        return forward_at(listen, self.forwards.values())

    async def snapshot(self) -> dict[str, Snapshot]:
        """Return each forward's counters over all workers, dead ones included."""
        return self._total(await self.pool.ask("snapshot"))

    def _total(self, answers: dict[int, list[Any]]) -> dict[str, Snapshot]:
        total = dict(self.pool.retired)
        for answer in answers.values():
            for listen, numbers in answer:
                total[listen] = added(total[listen], numbers) if listen in total else numbers
        return total

    async def status(self) -> dict[str, list[dict[str, Any]]]:
        """Return the state and counters of every worker and forward."""
        answers = await self.pool.ask("snapshot")
        workers = [
            {
                "slot": slot,
                "pid": handle.pid,
                "since": handle.since,
                "flows": sum(numbers["flows"] for _, numbers in answers.get(slot, ())),
                "ended": sum(numbers["ended"] for _, numbers in answers.get(slot, ())),
            }
            for slot, handle in sorted(self.pool.workers.items())
        ]
        return {"workers": workers, "forwards": self._states(self._total(answers))}

    def _states(self, numbers: dict[str, Snapshot]) -> list[dict[str, Any]]:
        """Return the forwards, including those that are draining."""
        states: list[dict[str, Any]] = []
        for listen, forward in self.forwards.items():
            described = {
                "listen": str(listen),
                "target": str(forward.target),
                "client_ip": str(forward.client_ip),
                "state": "open",
                "since": self.since[listen],
                "mismatch": self._mismatches.text(forward),
            }
            states.append(described | numbers.pop(str(listen), Counters().snapshot()))
        for text, left in numbers.items():
            if left["flows"] > left["ended"]:
                states.append({"listen": text, "state": "draining"} | left)
        return states

    async def flows(self) -> list[dict[str, Any]]:
        """The flows that live; see Relay.flows_now. `worker` is the process that has it."""
        pids = {slot: handle.pid for slot, handle in self.pool.workers.items()}
        answers = await self.pool.ask("flows")
        return [
            flow | {"worker": pids[slot]} for slot, answer in answers.items() for flow in answer
        ]

    # -- the end --

    async def drain(self, grace: float, *, keeps: Iterable[Endpoint] | None = None) -> None:
        """Stop to listen, and give flows `grace` seconds to finish; then the workers end.

        `keeps`: what a successor goes on with, so that who waits there is its business.
        """
        kept = set(keeps or ())
        for listen in [listen for listen in self.forwards if listen not in kept]:
            if kept:
                self._close(listen)
        self.listen_sockets.close_all()
        self.pool.drain(grace, take_queue=not kept)
        await self.pool.gone.wait()
