"""The native modules, where they can be built. Without them the wheel is pure, and complete.

`_epoll` and `_ring` move bytes of TCP flows; Python does where they are missing. `_scan` reads
usual heads of HTTP and small chunks of its bodies; patterns do where it is missing, at ten times
the cost. `_pass` moves HTTP messages that are usual.
"""

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
PYTHON = "#define Py_LIMITED_API 0x030B0000\n#include <Python.h>\n"
LIBURING = "#include <liburing.h>\n"
SCANNER, PASS = "v6fwd.client_ip.http._scan", "v6fwd.relay.http._pass"
EPOLL, RING = "v6fwd.relay.pairs._epoll", "v6fwd.relay.ring._ring"
HEADS = "v6fwd/client_ip/http/_heads.c"
FLAGS = os.environ.get("V6FWD_NATIVE_FLAGS", "").split()
"""More for compiler and linker, such as -fsanitize=address,undefined."""


def can_build(needed: str, *libraries: str) -> bool:
    """Whether there are a compiler, these headers and libraries."""
    compiler = (os.environ.get("CC") or "cc").split()
    if shutil.which(compiler[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "needed.c")
        source.write_text(needed + "int main(void) { return 0; }\n")
        include = f"-I{sysconfig.get_path('include')}"
        words = [*compiler, include, str(source), "-o", f"{folder}/needed", *libraries]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0


def native(name: str, sources: list[str], *libraries: str) -> Extension:
    """A module; if it does not compile, setuptools says so and goes on."""
    return Extension(
        name,
        sources,
        depends=[*map(str, Path("v6fwd").rglob("*.h"))],
        extra_compile_args=["-Wall", "-Wextra", *FLAGS],
        extra_link_args=[*libraries, *FLAGS],
        py_limited_api=True,
        optional=True,
    )


modules = []
if can_build(PYTHON):
    modules.append(native(SCANNER, ["v6fwd/client_ip/http/_scan.c", HEADS]))
    modules.append(native(PASS, ["v6fwd/relay/http/_pass.c", HEADS]))
    modules.append(native(EPOLL, ["v6fwd/relay/pairs/_epoll.c", "v6fwd/relay/pairs/_moves.c"]))
else:
    print("no compiler or Python headers: without the native scanner, epoll and HTTP")
if can_build(PYTHON + LIBURING, *STATIC):
    modules.append(native(RING, ["v6fwd/relay/ring/_ring.c", "v6fwd/relay/ring/_pairs.c"], *STATIC))
else:
    print("no compiler, Python headers or liburing-dev: without the native ring")
setup(
    ext_modules=modules,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if modules else {},
)
