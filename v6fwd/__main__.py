"""`python -m v6fwd` is `v6fwd`."""

from __future__ import annotations

import gc
import sys

import v6fwd.relay.life.later  # noqa: F401 - before the first dataclass


def main() -> None:
    """Run the command of this process's command line."""
    gc.disable()  # modules leave no garbage: looking for some took a tenth of the start
    if sys.argv[1:2] == ["forward"] and _forwards_quickly():
        return
    from v6fwd.cli import main as command

    gc.enable()
    command(prog_name="v6fwd")


def _forwards_quickly() -> bool:
    from v6fwd.cli.quick import read

    line = read(sys.argv[2:])
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


if __name__ == "__main__":
    main()
