"""The commands, one file each: they parse, call and print."""

from __future__ import annotations

import click

from v6fwd import __version__
from v6fwd.cli import (
    demo,
    docker,
    docker_proxy,
    doctor,
    drain,
    flows,
    forward,
    probe,
    reload,
    serve,
    status,
    whois,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="v6fwd")
def main() -> None:
    """Relay in docker-proxy's place that tells containers the real IPv6 address of a client."""


main.add_command(demo.demo)
main.add_command(docker.docker)
main.add_command(docker_proxy.docker_proxy)
main.add_command(doctor.doctor)
main.add_command(forward.forward)
main.add_command(probe.probe)
main.add_command(serve.serve)
main.add_command(status.status)
main.add_command(flows.flows)
main.add_command(drain.drain)
main.add_command(reload.reload_)
main.add_command(whois.whois)
