"""v6fwd as pip installs it: an environment that has nothing but its own libraries.

The one that runs this suite has hooks for developers in .pth files (editable install, coverage,
setuptools). Python runs them at each start, which takes half the time of a bare interpreter. pip
compiles what it installs; of a checkout each start may compile all modules, which takes 40 ms.
"""

from __future__ import annotations

import atexit
import compileall
import functools
import re
import shutil
import sys
import tempfile
import venv
from importlib import metadata
from pathlib import Path

import v6fwd

_NAME_RE = re.compile(r"[^A-Za-z0-9._-]")
"""What ends the name in a requirement."""


def python() -> str:
    """The interpreter of the environment."""
    return str(_programs() / "python")


def program() -> str:
    """The command `v6fwd`."""
    return str(_programs() / "v6fwd")


@functools.cache
def _programs() -> Path:
    """The folder of programs of an environment that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="v6fwd-installed-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    venv.create(folder, symlinks=True)
    minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = folder / "lib" / minor / "site-packages"
    shutil.copytree(Path(v6fwd.__file__).parent, packages / "v6fwd", ignore=_compiled)
    compileall.compile_dir(packages / "v6fwd", quiet=1)
    for name in sorted(libraries("v6fwd") - {"v6fwd"}):
        for path in _top_levels(name):
            (packages / path.name).symlink_to(path)
    script = folder / "bin" / "v6fwd"
    script.write_text(f"#!{folder / 'bin' / 'python'}\n{_script()}")
    script.chmod(0o755)
    return folder / "bin"


_compiled = shutil.ignore_patterns("__pycache__")


def _script() -> str:
    """The program behind its first line, which pip writes."""
    return Path(v6fwd.__file__).parent.joinpath("cli", "v6fwd").read_text().partition("\n")[2]


def libraries(name: str) -> set[str]:
    """A distribution and all that it needs here, extras aside."""
    found, todo = set[str](), [name]
    while todo:
        one = todo.pop()
        if one in found:
            continue
        try:
            wanted = metadata.requires(one) or ()
        except metadata.PackageNotFoundError:  # for another Python or system
            continue
        found.add(one)
        todo += [_NAME_RE.split(each, maxsplit=1)[0] for each in wanted if "extra ==" not in each]
    return found


def _top_levels(name: str) -> set[Path]:
    """The packages and modules of a distribution, and what describes it."""
    distribution = metadata.distribution(name)
    files = distribution.files or ()
    tops = {file.parts[0] for file in files if ".." not in file.parts}
    paths = {Path(str(distribution.locate_file(top))) for top in tops}
    return {path for path in paths if path.exists() and path.name != "__pycache__"}
