"""Reading in a process of its own: what that takes, in code and in rubbish, ends with it.

1.5 MB, which a daemon would keep for good: marshmallow and all that it imports.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, NoReturn

from v6fwd.config import Config, ConfigError, load


def load_apart(path: Path) -> Config:
    """As `load`. Where there is no process to be had, or it dies, this one reads itself."""
    try:
        data = _answer(path)
    except OSError:
        data = b""
    config, mistakes = pickle.loads(data) if data else _outcome(path)
    if mistakes:
        raise ConfigError(mistakes)
    assert isinstance(config, Config)
    return config


def _answer(path: Path) -> bytes:
    """What the reader has to say; b"" if it died. Raises OSError."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as answer:
        try:
            pid = os.fork()
            if not pid:
                _be_reader(path, writing)
        finally:
            os.close(writing)
        data = answer.read()
    _, status = os.waitpid(pid, 0)
    return b"" if status else data


def _be_reader(path: Path, writing: int) -> NoReturn:
    """The whole life of the child."""
    status = 1
    try:
        with os.fdopen(writing, "wb", closefd=False) as answer:
            pickle.dump(_outcome(path), answer, pickle.HIGHEST_PROTOCOL)
        status = 0
    finally:
        os._exit(status)


def _outcome(path: Path) -> tuple[Config | None, Any]:
    """The configuration, or its mistakes."""
    try:
        return load(path), ()
    except ConfigError as error:
        return None, error.mistakes
