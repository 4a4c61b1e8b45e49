"""Finds the holder, the small program that a shim becomes while a daemon serves its port."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from v6fwd.errors import RelayError, reason

HOLDER = "hold-"
"""What its name begins with; the machine follows, as uname(1) prints it."""
FOLDER = Path(__file__).with_name("hold")
_PATIENCE = 10.0  # seconds


def find_holder(folder: Path = FOLDER) -> Path:
    """Return the one that runs on this machine. Raises RelayError, which says what to do."""
    path = folder / f"{HOLDER}{os.uname().machine}"
    try:
        subprocess.run([path], check=True, timeout=_PATIENCE)
    except FileNotFoundError:
        raise RelayError(f"{path} is missing; scripts/build-hold builds it") from None
    except OSError as error:
        raise RelayError(f"{path} does not run here: {reason(error)}") from error
    except subprocess.SubprocessError as error:
        raise RelayError(f"{path} does not run here: {error}") from error
    return path
