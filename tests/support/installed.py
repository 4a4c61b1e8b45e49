"""For tests of v6fwd as a service of a `Machine`: lays it out there as an installation has it.

The units run in a sandbox without /home, /root and /tmp, where a checkout may be, so the machine
has it in /opt/v6fwd: a virtual environment whose packages are those of this one, mounted there.
"""

from __future__ import annotations

import shlex
import site
import sys

from tests.support.paths import ROOT

UNITS = ROOT / "contrib" / "systemd"
EXPOSED = {"v6fwd.service": 1.5, "v6fwd-docker.service": 3.3}
"""What systemd calls the exposure of each, from 0 to 10, is at most that."""
_LIBRARY = f"opt/v6fwd/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def install_v6fwd(*units: str) -> str:
    """Lines of `setup` for a machine: v6fwd in /usr/local/bin, and these of its units.

    What this host has in /var/lib/v6fwd goes: systemd could not rename it in an overlay.
    """
    python = shlex.quote(getattr(sys, "_base_executable", sys.executable))
    packages = shlex.quote(site.getsitepackages()[0])
    mine, shim = (shlex.quote(str(ROOT / name)) for name in ("v6fwd", "v6fwd/docker/shim"))
    return f"""
rm -rf var/lib/v6fwd var/lib/private/v6fwd
mkdir -p opt/v6fwd/bin opt/v6fwd/packages {_LIBRARY}/v6fwd etc/v6fwd
ln -s {python} opt/v6fwd/bin/python
printf 'home = /usr/bin\\ninclude-system-site-packages = false\\n' >opt/v6fwd/pyvenv.cfg
mount -o bind {packages} opt/v6fwd/packages
mount -o bind {mine} {_LIBRARY}/v6fwd
echo /opt/v6fwd/packages >{_LIBRARY}/packages.pth
printf '%s\\n' '#!/opt/v6fwd/bin/python' 'import sys' 'from v6fwd.cli import main' \\
    'sys.exit(main())' >opt/v6fwd/bin/v6fwd
cp {shim}/v6fwd-docker-proxy opt/v6fwd/bin/
chmod 755 opt/v6fwd/bin/v6fwd opt/v6fwd/bin/v6fwd-docker-proxy
mkdir -p usr/local/bin
ln -sf /opt/v6fwd/bin/v6fwd /opt/v6fwd/bin/v6fwd-docker-proxy usr/local/bin/
cp {" ".join(shlex.quote(str(UNITS / unit)) for unit in units)} etc/systemd/system/
"""
