"""nginx with the stream module."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bench.peers.base import (
    HEADER_OFF,
    HEADER_ON,
    MANY_AT_ONCE,
    Peer,
    Relay,
    Route,
    descriptor_limit,
    said,
)
from bench.processes import TCP, UDP
from bench.trial import Trial

_HEAD = """\
{module}daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile {descriptors};
events {{ worker_connections {connections}; }}
"""
_SERVER = """\
    server {{
        listen [{ground.listen_host}]:{route.listen} ipv6only=off{listen};
        proxy_pass {ground.target_host}:{route.target};{header}
        {option}
    }}
"""
_OPTIONS = {
    TCP: {"listen": "", "option": "proxy_half_close on;"},
    UDP: {"listen": " udp reuseport", "option": "proxy_timeout 90s;"},
}
_CONNECTIONS = {TCP: 9000, UDP: 24_000}
"""For a worker. A UDP session takes two, and workers need not get equal shares of them."""


class Nginx(Peer):
    """A worker a core, or as many as are asked for. It can send the PROXY header's version 1 only.

    proxy_half_close (nginx 1.21.4 and later): a client that has sent its end gets the rest of its
    answer, as with all other peers; without it nginx cuts the answer off.

    UDP: reuseport, since without it the datagrams of one client go to several workers, each with a
    session of its own; and docker-proxy's timeout. proxy_responses stays unlimited: a session
    lasts until its timeout, as with docker-proxy and v6fwd.
    """

    product = "nginx"
    programs = ("nginx",)

    def __init__(self, header: str = HEADER_OFF, workers: int = 0) -> None:
        self.header = header
        self.workers = workers
        self.name = "nginx-proxy-v1" if header == HEADER_ON else "nginx"
        if workers:
            self.name += f"-{workers}"
            self.only = MANY_AT_ONCE

    def obstacle(self) -> str | None:
        """See Peer."""
        return super().obstacle() or (None if stream_module() is not None else "no stream module")

    def version(self) -> str:
        """See Peer."""
        return said("nginx", "-v")

    def config(self, trial: Trial, routes: Sequence[Route]) -> str:
        """The text of nginx.conf."""
        header = " proxy_protocol on;" if self.header == HEADER_ON else ""
        descriptors = descriptor_limit()
        protocol = routes[0].protocol
        head = _HEAD.format(
            module=stream_module(),
            workers=self.workers or "auto",
            folder=trial.folder,
            descriptors=descriptors,
            connections=min(_CONNECTIONS[protocol], descriptors - 500),
        )
        words = {"ground": trial.ground, "header": header, **_OPTIONS[protocol]}
        servers = [_SERVER.format(route=route, **words) for route in routes]
        return f"{head}stream {{\n{''.join(servers)}}}\n"

    def start(self, trial: Trial, routes: Sequence[Route]) -> Relay:
        """See Peer."""
        path = trial.write("nginx.conf", self.config(trial, routes))
        process = trial.start("host", "nginx", "-p", str(trial.folder), "-e", "stderr", "-c", path)
        ports = [route.listen for route in routes]
        trial.wait_for_ports(process, ports, self.name, routes[0].protocol)
        return self._relay(trial, routes, [process.pid])


@cache
def stream_module() -> str | None:
    """The line that loads the stream module, "" where it is built in, None where it is missing."""
    done = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=False)
    options = done.stderr.split()
    if "--with-stream" in options:
        return ""
    folders = [word.partition("=")[2] for word in options if word.startswith("--modules-path=")]
    for folder in folders:
        module = Path(folder) / "ngx_stream_module.so"
        if module.exists():
            return f"load_module {module};\n"
    return None
