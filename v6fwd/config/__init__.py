"""v6fwd.toml: read, checked as a whole, and turned into what `serve` works with.

settings    what is known when all files are read: Config and its parts
keys        which keys there are, and what each of them takes
reader      files, tables, and every mistake in them
"""

from v6fwd.config.reader import load
from v6fwd.config.settings import Config, ConfigError, Control, Docker, Metrics

__all__ = ["Config", "ConfigError", "Control", "Docker", "Metrics", "load"]
