"""`python -m v6fwd` is `v6fwd`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence


def main() -> None:
    """Run the command of this process's command line."""
    gc.disable()  # modules leave no garbage: looking for some took a tenth of the start
    quickly = {"forward": _forward, "serve": _serve}.get("".join(sys.argv[1:2]))
    try:
        if quickly is not None and quickly(sys.argv[2:]):
            return
    except KeyboardInterrupt:  # before signals are handled; click does the same
        print("Aborted!", file=sys.stderr)
        sys.exit(1)
    from v6fwd.cli import main as command

    gc.enable()
    command(prog_name="v6fwd")


def _forward(words: Sequence[str]) -> bool:
    """Whether click was not needed."""
    from v6fwd.cli.quick import read

    line = read(words)
    if line is None:
        return False
    from v6fwd.cli.serving import serve_here

    serve_here(
        line.forwards,
        line.limits,
        log_flows=line.log_flows,
        log_format=line.log_format,
        engine=line.engine,
    )
    return True


def _serve(words: Sequence[str]) -> bool:
    """Whether click was not needed."""
    from v6fwd.cli.quick import read_serve

    line = read_serve(words)
    if line is None:
        return False
    from pathlib import Path

    import v6fwd.relay.life.later  # noqa: F401 - before the first dataclass
    from v6fwd.cli.daemon import DEFAULT, configuration, serve_config

    name, docker = line
    needs_file = bool(name) or not docker
    path = Path(name) if name else DEFAULT
    config = configuration(path, docker=docker, needs_file=needs_file)
    gc.enable()
    serve_config(path, config, docker=docker, needs_file=needs_file)
    return True


if __name__ == "__main__":
    main()
