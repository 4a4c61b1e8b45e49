"""The servers behind the relay, one class each: how it starts on the container's side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from bench.peers.base import HEADER_ON
from bench.trial import Trial

BODY = "hello world\n"
"""What the web target answers to everybody who sends no PROXY header."""

_WEB = """\
daemon off;
worker_processes 1;
pid {folder}/web.pid;
error_log stderr crit;
worker_rlimit_nofile {connections};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/web-body;
    proxy_temp_path {folder}/web-proxy;
    fastcgi_temp_path {folder}/web-fastcgi;
    uwsgi_temp_path {folder}/web-uwsgi;
    scgi_temp_path {folder}/web-scgi;
    server {{
        listen {host}:{ports}{option};
        location / {{ return 200 "{body}"; }}
    }}
}}
"""


class Target(ABC):
    """One real server; `count` ports in a row where it is asked for more than one."""

    program: ClassVar[str]

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.ports = range(0)

    @property
    def port(self) -> int:
        """The first port, once it has started."""
        return self.ports[0]

    def start(self, trial: Trial, header: str) -> range:
        """Start it on the container, wait until it listens; gives its ports. Raises TrialError.

        With HEADER_ON it expects a PROXY header in front of each connection.
        """
        self.ports = trial.ground.ports(self.count)
        self._start(trial, header)
        return self.ports

    @abstractmethod
    def _start(self, trial: Trial, header: str) -> None:
        """Start it on `self.ports`, and wait until it listens there."""


class Iperf(Target):
    """iperf3, for bulk data."""

    program = "iperf3"

    def _start(self, trial: Trial, header: str) -> None:  # noqa: ARG002 - knows no header
        process = trial.start("container", "iperf3", "-s", "-p", str(self.port))
        trial.wait_for_ports(process, self.ports, "iperf3")


class Web(Target):
    """nginx with one worker and a constant answer, or the client's address from the header."""

    program = "nginx"

    def _start(self, trial: Trial, header: str) -> None:
        config = _WEB.format(
            folder=trial.folder,
            connections=9000,
            host=trial.ground.target_host,
            ports=f"{self.ports[0]}-{self.ports[-1]}" if self.count > 1 else self.port,
            option=" proxy_protocol" if header == HEADER_ON else "",
            body="$proxy_protocol_addr\\n" if header == HEADER_ON else BODY.replace("\n", "\\n"),
        )
        path = trial.write("web.conf", config)
        folder = str(trial.folder)
        process = trial.start("container", "nginx", "-p", folder, "-e", "stderr", "-c", path)
        trial.wait_for_ports(process, self.ports, "nginx (target)")


class Redis(Target):
    """redis-server, for small requests on connections that stay."""

    program = "redis-server"

    def _start(self, trial: Trial, header: str) -> None:  # noqa: ARG002 - knows no header
        process = trial.start(
            "container", "redis-server", "--save", "", "--protected-mode", "no",
            "--bind", trial.ground.target_host, "--port", str(self.port),
            "--dir", str(trial.folder),
        )  # fmt: skip
        trial.wait_for_ports(process, self.ports, "redis-server")


class Echo(Target):
    """Our own: sends everything back; holds idle flows, and checks bytes."""

    program = "python3"

    def _start(self, trial: Trial, header: str) -> None:
        words = [trial.ground.target_host, str(self.port)]
        process = trial.helper("container", "echo", *words, *(["--proxy"] if header else []))
        trial.wait_for_ports(process, self.ports, "echo")
