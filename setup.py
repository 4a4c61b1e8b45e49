"""The native ring, where it can be built; without it the wheel is pure, and epoll does the work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup

STATIC = ["-l:liburing.a"]
"""A wheel needs no liburing where it is installed."""
NEEDED = "#define Py_LIMITED_API 0x030B0000\n#include <Python.h>\n#include <liburing.h>\n"
FLAGS = os.environ.get("V6FWD_RING_FLAGS", "").split()
"""More for compiler and linker, such as -fsanitize=address,undefined."""


def can_build() -> bool:
    """Whether there are a compiler, the headers of Python and liburing."""
    compiler = (os.environ.get("CC") or "cc").split()
    if shutil.which(compiler[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "needed.c")
        source.write_text(NEEDED + "int main(void) { return 0; }\n")
        include = f"-I{sysconfig.get_path('include')}"
        words = [*compiler, include, str(source), "-o", f"{folder}/needed", *STATIC]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0


ring = Extension(
    "v6fwd.relay.ring._ring",
    ["v6fwd/relay/ring/_ring.c", "v6fwd/relay/ring/_pairs.c"],
    depends=["v6fwd/relay/ring/_pairs.h"],
    extra_compile_args=["-Wall", "-Wextra", *FLAGS],
    extra_link_args=[*STATIC, *FLAGS],
    py_limited_api=True,
    optional=True,
)
is_native = can_build()
if not is_native:
    print("no compiler, Python headers or liburing-dev: without the native ring")
setup(
    ext_modules=[ring] if is_native else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if is_native else {},
)
