"""The holder: what a shim becomes while we serve its port, see hold/hold.c."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from v6fwd.errors import RelayError, reason

HOLDER = "hold-"
"""How its name begins; the machine follows, as uname(1) has it."""
FOLDER = Path(__file__).with_name("hold")
_PATIENCE = 10.0


def find_holder(folder: Path = FOLDER) -> Path:
    """The one that runs on this machine. Raises RelayError, which says what to do."""
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
