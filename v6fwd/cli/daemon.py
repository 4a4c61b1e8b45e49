"""What `v6fwd serve` does once its command line is read."""

from __future__ import annotations

import sys
from pathlib import Path

from v6fwd.cli.failing import fail
from v6fwd.config import Config, ConfigError, load
from v6fwd.errors import RelayError
from v6fwd.log import Log, keep_standard_descriptors
from v6fwd.relay.targets.loops import is_local_address

DEFAULT = Path("v6fwd.toml")


def configuration(path: Path, *, docker: bool, needs_file: bool) -> Config:
    """The configuration; exit with 2, and every mistake on stderr, if it is wrong."""
    try:
        config = load(path, at_start=True, may_be_missing=not needs_file, is_local=is_local_address)
        if docker and config.user:
            raise ConfigError(
                [f"{path}: user = {config.user!r}: --docker needs root; leave it out"]
            )
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    return config


def serve_config(path: Path, config: Config, *, docker: bool, needs_file: bool) -> None:
    """Serve until a signal; exit with 1 if that fails."""
    from v6fwd.daemon.serve import serve  # no other command needs it
    from v6fwd.docker.targets import ContainerTargets

    keep_standard_descriptors()
    log = Log(config.log_format)
    sources = []
    if docker:
        from v6fwd.docker.controller import Controller

        sources.append(Controller(config.docker, config.limits, log))
    try:
        targets = ContainerTargets(config.docker.host, log)
        serve(path, config, log, sources, targets, needs_file=needs_file)
    except RelayError as error:
        fail(log, error)
