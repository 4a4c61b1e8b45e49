"""Decides which ports' IPv4 clients are redirected to v6fwd, and how long.

Docker's own rule would let them reach the container with headers of their own. So they are
redirected from before the container runs, when its mode is not yet known, until the Engine has
answered that it is gone: the redirect outlives a daemon whose shims live, and a shim whose dockerd
is down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain

from v6fwd.docker.adopted_ports import AdoptedPort
from v6fwd.docker.docker_user import DockerUser
from v6fwd.docker.ipv4_redirect import Ipv4Redirect
from v6fwd.docker.legacy_guard import LegacyGuard
from v6fwd.docker.neighbours import drop_waiting
from v6fwd.docker.nft import Element, elements_of
from v6fwd.docker.policy.modes import needs_all
from v6fwd.log import Log, attempt
from v6fwd.model import Forward


class Lingering:
    """Redirects that stay until the Engine has answered that their containers are gone.

    While dockerd restarts with live-restore, its shims are gone and its containers live on, with
    Docker's rules for IPv4 in place. Only an answer to a question that was asked after a shim's end
    tells whether that is so.
    """

    def __init__(self, elements: Iterable[Element] = ()) -> None:
        self._questions = dict.fromkeys(elements, 0)
        """How many questions had been asked when each of them began to linger."""

    def __iter__(self) -> Iterator[Element]:
        return iter(self._questions)

    def add(self, elements: Iterable[Element], asked: int) -> None:
        """Keep the redirect until the answer to question `asked` + 1 or a later one."""
        self._questions |= dict.fromkeys(elements, asked)

    def answered(self, question: int) -> None:
        """Drop what this answer has told about."""
        self._questions = {
            element: asked for element, asked in self._questions.items() if asked >= question
        }


class Ipv4Clients:
    """The redirect, as the ports and the Engine's answers want it."""

    def __init__(self, log: Log) -> None:
        self._redirect = Ipv4Redirect(log)
        self._docker_user = DockerUser(log, self._set_redirect)
        self._legacy_guard = LegacyGuard(log)
        self._lingering = Lingering()
        self._needed: set[Element] = set()
        self._others: set[Element] = set()
        self.mesh: Sequence[Forward] = ()
        """Ports of Swarm's mesh, as seen from IPv4, whose clients all must come to us."""
        self._is_scanned = False
        """Whether all shims are known that were there before; until then nothing is taken back."""

    def begin(self) -> None:
        """Keep what a former daemon redirected until the Engine has answered."""
        self._lingering = Lingering(self._redirect.left_behind())

    def scanned(self, ports: Iterable[AdoptedPort]) -> None:
        """Apply what is desired from now on."""
        self._is_scanned = True
        self.apply(ports)

    def apply(
        self,
        ports: Iterable[AdoptedPort],
        coming: Iterable[Forward] = (),
        *,
        at_once: bool = True,
    ) -> None:
        """Redirect the IPv4 clients of the ports that need them all, or may: their mode is not
        known, or they are refused. `coming`: others that may.

        A shim for IPv6 has a twin for IPv4, which is another port.
        """
        if not self._is_scanned:
            return
        mine = [port for port in ports if _is_ipv4(port.forward)]
        required = [port.forward for port in mine if needs_all(port.forward)]
        required += self.mesh
        coming = list(filter(_is_ipv4, coming))
        precaution = [*(port.forward for port in mine if not port.is_open), *coming]
        self._docker_user.set((*required, *precaution))
        self._needed = set(chain.from_iterable(map(elements_of, required)))
        self._others = {*chain.from_iterable(map(elements_of, precaution)), *self._lingering}
        self._legacy_guard.set(self._needed | self._others)
        self._set_redirect(at_once=at_once)
        with contextlib.suppress(OSError):  # no privilege, or no such network: nothing waits
            drop_waiting({forward.target.host for forward in coming})

    def _set_redirect(self, *, at_once: bool = True) -> None:
        """Redirect what DOCKER-USER can judge; of other ports only the guard is there, which drops
        their IPv4 clients."""
        unjudged = {forward.listen for forward in self._docker_user.unjudged}
        self._redirect.set(self._needed - unjudged, self._others - unjudged, at_once=at_once)

    def ended(self, port: AdoptedPort, asked: int) -> bool:
        """Keep the redirect of a port whose shim has ended until the Engine has answered another
        question than the first `asked`; gives whether there is one."""
        lingers = _is_ipv4(port.forward) and (not port.is_open or needs_all(port.forward))
        if lingers:
            self._lingering.add(elements_of(port.forward), asked)
        return lingers

    def answered(self, question: int) -> None:
        """The Engine has answered this question: shims of what it tells of have been adopted."""
        self._lingering.answered(question)

    def check(self) -> None:
        """Restore what another program has changed."""
        attempt(self._redirect.check)
        self._docker_user.check()
        self._legacy_guard.check()

    def close(self, *, keep: bool) -> None:
        """Change nothing more; `keep`: another daemon goes on, or shims wait for one."""
        keep = keep or any(self._lingering) or any(map(needs_all, self.mesh))
        attempt(partial(self._redirect.close, keep=keep))
        self._docker_user.close(keep=keep)
        self._legacy_guard.close(keep=keep)


def _is_ipv4(forward: Forward) -> bool:
    return ":" not in forward.listen.host
