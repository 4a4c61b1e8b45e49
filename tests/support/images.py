"""For tests with a real Engine: images made of what is installed here; nothing is pulled."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from tests.support.engine import Engine
from tests.support.paths import ROOT

_LIBRARY_RE = re.compile(r"(/\S+) \(0x")


def libraries(program: str) -> set[str]:
    """The shared objects that a program or module needs, its loader included."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    return set(_LIBRARY_RE.findall(told.stdout))


class Image:
    """A root file system as a tar in memory."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._bytes, mode="w")  # noqa: SIM115 - load closes it
        self._names: set[str] = set()

    def program(self, *paths: str) -> None:
        """Add programs and modules with the libraries that they need."""
        for path in paths:
            for each in (path, *sorted(libraries(path))):
                self.copy(Path(each), each)

    def copy(self, source: Path, name: str) -> None:
        """Add a file of this machine."""
        if name not in self._names:
            self._names.add(name)
            info = self._tar.gettarinfo(str(source.resolve()), name.lstrip("/"))
            with source.open("rb") as file:
                self._tar.addfile(info, file)

    def text(self, name: str, text: str, mode: int = 0o644) -> None:
        """Add a file with this text."""
        self.data(name, text.encode(), mode)

    def data(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file with these bytes."""
        info = tarfile.TarInfo(name.lstrip("/"))
        info.size, info.mode = len(data), mode
        self._tar.addfile(info, io.BytesIO(data))

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Add an empty folder."""
        info = tarfile.TarInfo(name.lstrip("/"))
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(info)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        info = tarfile.TarInfo(name.lstrip("/"))
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(info)

    def late_libraries(self) -> None:
        """Add what is loaded by name only when it is needed, which ldd(1) does not tell."""
        [libc] = (path for path in libraries(_path("apache2")) if "/libc.so" in path)
        for name in ("gcc_s.so.1", "pthread.so.0", "rt.so.1", "dl.so.2"):
            path = Path(libc).with_name(f"lib{name}")
            self.copy(path, str(path))

    def busybox(self, applets: Iterable[str]) -> None:
        """Add a shell and a few tools in /bin."""
        self.copy(Path(_path("busybox")), "/bin/busybox")
        for applet in applets:
            self.link(f"/bin/{applet}", "busybox")
        self.folder("/tmp", 0o1777)

    def load(self, engine: Engine, name: str, *changes: str) -> None:
        """Let an engine have it; `changes` are lines of a Dockerfile."""
        words = [word for change in changes for word in ("--change", change)]
        engine.docker("import", *words, "-", name, input=self.finished(), text=False)

    def finished(self) -> bytes:
        """The tar, as `docker import` reads it; nothing can be added any more."""
        self._tar.close()
        return self._bytes.getvalue()


ECHO_SCRIPT = """\
#!/bin/sh
# Says from where it is asked, and then the same as the one who asks.
trap 'kill 0; exit 0' TERM
say='SYSTEM:echo from $SOCAT_PEERADDR; cat'
first=$1 last=${2:-$1}
for port in $(seq "$first" "$last"); do
    socat "TCP4-LISTEN:$port,fork,reuseaddr" "$say" &
    socat "UDP4-RECVFROM:$port,fork" "$say" &
done
wait
"""


def echo_image() -> Image:
    """`docker run echo FIRST [LAST]`: an IPv4-only server of TCP and UDP on these ports."""
    image = Image()
    image.busybox(("sh", "cat", "seq", "kill"))
    image.program(_path("socat"))
    image.text("/bin/echo-server", ECHO_SCRIPT, 0o755)
    return image


def load_echo(engine: Engine) -> None:
    """Let an engine have `echo`."""
    echo_image().load(engine, "echo", 'ENTRYPOINT ["/bin/echo-server"]', "ENV PATH=/usr/bin:/bin")


APACHE_MODULES = ("authz_core", "dir", "mime", "mpm_event", "remoteip")
_APACHE = "/usr/local/apache2"


STOCK_HTTPD = """\
ServerName localhost
ServerRoot /usr/local/apache2
{listen}
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule dir_module modules/mod_dir.so
LoadModule mime_module modules/mod_mime.so
User www-data
Group www-data
PidFile /tmp/httpd.pid
DefaultRuntimeDir /tmp
TypesConfig /dev/null
DocumentRoot htdocs
DirectoryIndex index.html
ErrorLog /proc/self/fd/2
LogFormat "%h %l %u %t \\"%r\\" %>s %b" common
CustomLog /proc/self/fd/1 common
"""


HTTPD_CHANGES = ('CMD ["httpd-foreground"]', "WORKDIR " + _APACHE, "EXPOSE 80")


def load_httpd(engine: Engine, name: str, conf: str = "") -> None:
    """Let an engine have `httpd_image`."""
    httpd_image(conf).load(engine, name, *HTTPD_CHANGES)


def httpd_image(conf: str = "") -> Image:
    """Debian's Apache in the shape of the official image `httpd`, with HTTPD_CHANGES.

    `conf`: its configuration, such as STOCK_HTTPD; without, a volume brings it.
    """
    image = Image()
    image.busybox(("sh", "cat"))
    apache = _path("apache2")
    modules = [f"/usr/lib/apache2/modules/mod_{module}.so" for module in APACHE_MODULES]
    image.program(apache)
    image.late_libraries()
    for module in modules:
        image.copy(Path(module), f"{_APACHE}/modules/{Path(module).name}")
        for each in libraries(module):
            image.copy(Path(each), each)
    image.text("/etc/passwd", "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/false\n")
    image.text("/etc/group", "root:x:0:\nwww-data:x:33:\n")
    image.text(f"{_APACHE}/htdocs/index.html", "<html><body><h1>It works!</h1></body></html>\n")
    for folder in ("conf", "logs"):
        image.folder(f"{_APACHE}/{folder}")
    if conf:
        image.text(f"{_APACHE}/conf/httpd.conf", conf)
    script = f"#!/bin/sh\nexec {apache} -d {_APACHE} -f conf/httpd.conf -DFOREGROUND\n"
    image.text("/bin/httpd-foreground", script, 0o755)
    return image


def load_sshd(engine: Engine, name: str, host_key: Path) -> None:
    """Let an engine have OpenSSH's server as Debian configures it; nobody may come in."""
    image = Image()
    image.busybox(("sh",))
    sshd = _path("sshd")
    image.program(sshd)
    image.late_libraries()
    image.copy(Path("/etc/ssh/sshd_config"), "/etc/ssh/sshd_config")
    image.data("/etc/ssh/ssh_host_ed25519_key", host_key.read_bytes(), 0o600)
    image.text("/etc/passwd", "root:x:0:0::/:/bin/sh\nsshd:x:74:74::/run/sshd:/bin/false\n")
    image.text("/etc/group", "root:x:0:\nsshd:x:74:\n")
    [deny] = Path("/usr/lib").glob("*/security/pam_deny.so")
    image.program(str(deny))
    stacks = ("auth", "account", "password", "session")
    image.text("/etc/pam.d/other", "".join(f"{each} required pam_deny.so\n" for each in stacks))
    image.folder("/run/sshd")
    image.load(engine, name, f'CMD ["{sshd}", "-D", "-e"]', "EXPOSE 22")


AS_HERE = ("--volume", "/usr:/usr:ro", "--volume", "/etc:/etc:ro")
"""For `docker run` of what `load_bare` has loaded."""


def load_bare(engine: Engine, name: str) -> None:
    """Let an engine have a Debian without programs: `AS_HERE` gives it this machine's, with the
    configuration that their packages have brought."""
    image = Image()
    logs = ("var/log/apache2", "var/log/nginx")
    for folder in ("usr", "etc", "run", "var/www", *logs, "var/lib/nginx", "var/lib/unbound"):
        image.folder(folder)
    image.folder("tmp", 0o1777)
    for link in ("bin", "sbin", "lib", "lib64"):
        image.link(link, f"usr/{link}")
    image.load(engine, name, "ENV PATH=/usr/sbin:/usr/bin")


PYTHON_LEFT_OUT = ("test", "config-3", "idlelib", "lib2to3", "pydoc_data", "__pycache__")


def python_image() -> Image:
    """Debian's Python, without pip."""
    image = Image()
    image.busybox(("sh", "cat", "rm", "mkdir"))
    python = Path("/usr/bin/python3").resolve()
    image.program(str(python))
    image.late_libraries()
    image.link("/usr/bin/python3", python.name)
    library = Path("/usr/lib", python.name)
    for path in sorted(library.rglob("*")):
        parts = path.relative_to(library).parts
        if path.is_file() and not any(part.startswith(PYTHON_LEFT_OUT) for part in parts):
            image.copy(path, str(path))
    for module in library.glob("lib-dynload/*.so"):
        for each in libraries(str(module)):
            image.copy(Path(each), each)
    return image


def v6fwd_image() -> Image:
    """v6fwd in the shape of the Dockerfile, from this checkout and the packages of its tests."""
    image = python_image()
    pinned = re.findall(
        "^([a-z0-9-]+)==", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE
    )
    installed = [file for name in pinned for file in metadata.files(name) or ()]
    found = {str(file): Path(file.locate()) for file in installed if ".." not in file.parts}
    found |= {str(path.relative_to(ROOT)): path for path in (ROOT / "v6fwd").rglob("*.*")}
    for name, path in found.items():
        if (
            path.is_file()
            and path.suffix != ".pyc"
            and not name.startswith(("setuptools", "_dist"))
        ):
            image.copy(path, f"/opt/v6fwd/{name}")
            for each in libraries(str(path)) if path.suffix == ".so" else ():
                image.copy(Path(each), each)
    image.text("/opt/v6fwd/bin/v6fwd", V6FWD_SCRIPT, 0o755)
    image.text("/etc/passwd", "root:x:0:0::/:/bin/sh\n")
    return image


V6FWD_SCRIPT = """\
#!/usr/bin/python3
import sys
sys.path.insert(0, "/opt/v6fwd")
from v6fwd.cli import main
sys.exit(main())
"""
V6FWD_CHANGES = (
    'ENTRYPOINT ["v6fwd"]',
    "ENV PATH=/opt/v6fwd/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1",
    "USER 65532:65532",
)


def load_python(engine: Engine, name: str) -> None:
    """Let an engine have Debian's Python with pip, in the shape of the official image `python`."""
    image = python_image()
    python = Path("/usr/bin/python3").resolve()
    [wheel] = Path("/usr/share/python-wheels").glob("pip-*.whl")
    with zipfile.ZipFile(wheel) as pip:
        for member in pip.namelist():
            image.data(f"/usr/local/lib/{python.name}/dist-packages/{member}", pip.read(member))
    image.load(engine, name, "ENV PATH=/usr/local/bin:/usr/bin:/bin")


def _path(program: str) -> str:
    path = shutil.which(program)
    assert path is not None, program
    return path
