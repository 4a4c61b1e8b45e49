"""The group of all commands."""

from __future__ import annotations

import click

from v6fwd import __version__
from v6fwd.cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "demo": Lazy("demo:demo", "Show the main job with nothing but this package."),
    "forward": Lazy("forward:forward", "Forward connections or datagrams from LISTEN to TARGET."),
    "serve": Lazy("serve:serve", "Run the forwards of a configuration file as a daemon."),
    "config": Lazy("config:config", "Print an example of a configuration, or what is in force."),
    "docker": Lazy("docker:docker", "Have v6fwd serve Docker's published ports."),
    "doctor": Lazy("doctor:doctor", "Say what keeps IPv6 clients from being served or seen."),
    "probe": Lazy("probe:probe", "Ask a server which client-ip mode fits it."),
    "status": Lazy("status:status", "Show the forwards of the running daemon."),
    "flows": Lazy("flows:flows", "List the clients of the running daemon."),
    "top": Lazy("top:top", "Watch forwards, clients and rates of the running daemon."),
    "ban": Lazy("ban:ban", "Ban clients at all forwards of the running daemon."),
    "unban": Lazy("ban:unban", "Let banned clients in again."),
    "bans": Lazy("ban:bans", "List the bans of the running daemon."),
    "whois": Lazy("whois:whois", "Translate pseudo IPv4 addresses and IPv6 clients."),
    "reload": Lazy("reload:reload_", "Make the running daemon read its configuration again."),
    "drain": Lazy("drain:drain", "Finish the flows of the daemon, or of one forward, and stop."),
    "docker-proxy": Lazy("docker_proxy:docker_proxy", "", is_hidden=True),
}
"""In the order of the help: first what a newcomer needs."""


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="v6fwd")
def main() -> None:
    """Relay in docker-proxy's place that tells containers the real IPv6 address of a client."""
