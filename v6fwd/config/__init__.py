"""v6fwd.toml: read, checked as a whole, and turned into what `serve` works with.

settings    what is known when all files are read: Config and its parts
keys        which keys there are, and what each of them takes
reader      files, tables, and every mistake in them
apart       the process in which that is done
"""

from __future__ import annotations

from pathlib import Path

from v6fwd.config.settings import Config, ConfigError, Control, Docker, Metrics

__all__ = ["Config", "ConfigError", "Control", "Docker", "Metrics", "load"]


def load(path: Path) -> Config:
    """Read `path` and the files that it includes. Raises ConfigError."""
    from v6fwd.config.reader import read  # marshmallow: 1 MB and 60 ms, for `serve` alone

    return read(path)
