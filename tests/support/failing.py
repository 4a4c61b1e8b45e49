"""For tests of native modules without memory: builds one whose allocations fail on demand."""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

from tests.support.paths import ROOT

FLAGS = os.environ.get("V6FWD_NATIVE_FLAGS", "").split()
"""As for setup.py; `make asan` gives the sanitizers."""
INCLUDE = sysconfig.get_path("include")
HERE = Path(__file__).parent


def can_build(header: str = "") -> bool:
    """Whether there are a compiler, Python's headers and this one."""
    return (
        shutil.which("cc") is not None
        and Path(INCLUDE, "Python.h").exists()
        and (not header or Path("/usr/include", header).exists())
    )


def _compile(*words: str | Path) -> None:
    outside = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run(["cc", "-fPIC", "-g", *FLAGS, *words], check=True, env=outside)


class Failing:
    """A native module of its own copy of the code."""

    def __init__(self, folder: Path, name: str, sources: list[str], *libraries: str) -> None:
        """`name` is the module's in the package; `sources` begin at the project's root."""
        path = folder / f"{name.rpartition('.')[2]}.so"
        own = folder / "failing.o"
        _compile("-c", HERE / "failing.c", "-o", own)
        words = ["-shared", f"-I{INCLUDE}", f"-I{(ROOT / sources[0]).parent}"]
        names = ["-Dmalloc=failing_malloc", "-Drealloc=failing_realloc"]
        files = [ROOT / source for source in sources]
        _compile(*words, *names, *files, own, "-o", path, *libraries)
        loader = importlib.machinery.ExtensionFileLoader(name, str(path))
        spec = importlib.util.spec_from_loader(name, loader)
        assert spec is not None
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        self.library = ctypes.PyDLL(str(path))

    def fail_after(self, calls: int) -> None:
        """Let so many allocations succeed, and none after them; -1: all."""
        self.library.fail_after(ctypes.c_long(calls))

    @property
    def failures(self) -> int:
        """Allocations that failed since it was last told to fail."""
        return int(self.library.failures())
