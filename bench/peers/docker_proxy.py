"""docker-proxy, started as dockerd does: a process a port, one after the other.

dockerd starts the next when the last has written `0` to its descriptor 3; so does this script.
(dockerd starts one more for each port for 0.0.0.0, which no IPv6 client meets; we leave it out.)
"""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from bench.peers.base import Peer, Relay, Route, said
from bench.trial import Trial

_SCRIPT = """\
protocol=$1 listen=$2 target=$3 fifo=$4
shift 4
mkfifo "$fifo"
exec 4<>"$fifo"
while [ $# -gt 0 ]; do
    docker-proxy -proto "$protocol" -host-ip "$listen" -host-port "$1" \
        -container-ip "$target" -container-port "$2" 3>&4 4<&- &
    read -r status <&4
    [ "$status" = 0 ] || { read -r why <&4; echo "$why"; exit 1; }
    shift 2
done
echo ready
wait
"""


class DockerProxy(Peer):
    """What v6fwd replaces."""

    name = "docker-proxy"
    product = "docker-proxy"
    programs = ("docker-proxy",)

    def version(self) -> str:
        """That of the engine it comes with; older ones tell none of their own."""
        return said("dockerd", "--version")

    def start(self, trial: Trial, routes: Sequence[Route]) -> Relay:
        """See Peer."""
        ports = [str(port) for route in routes for port in (route.listen, route.target)]
        ground = trial.ground
        fifo = str(trial.folder / "docker-proxy-ready")
        script = trial.write("docker-proxy.sh", _SCRIPT)
        shell = trial.start("host", "sh", script, routes[0].protocol,
                            ground.listen_host, ground.target_host, fifo, *ports)  # fmt: skip
        trial.wait(shell, lambda: "ready\n" in trial.log(shell), self.name)
        return self._relay(trial, routes, [one.pid for one in psutil.Process(shell.pid).children()])
