"""v6fwd.toml: read, checked as a whole, and turned into what `serve` works with.

settings    the result: Config and its parts
keys        the keys and the type of each
reader      reads tables and reports every mistake
files       reads regular files only, and never blocks
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from v6fwd.config.settings import Config, ConfigError, Control, Docker, Metrics
from v6fwd.model.loops import is_loopback

__all__ = ["Config", "ConfigError", "Control", "Docker", "Metrics", "load"]


def load(
    path: Path,
    *,
    at_start: bool = False,
    may_be_missing: bool = False,
    is_local: Callable[[bytes], bool] = is_loopback,
) -> Config:
    """Read `path` and the files that it includes. Raises ConfigError.

    `at_start`: the main file may be a pipe or a terminal, for which this waits.
    `may_be_missing`: all is as by default then. `is_local` tells whether an address is this
    host's; a forward must not lead back to itself.
    """
    if may_be_missing and not os.path.lexists(path):
        return Config()
    from v6fwd.config.reader import read  # tomllib and difflib, for `serve` alone

    return read(path, at_start=at_start, is_local=is_local)
