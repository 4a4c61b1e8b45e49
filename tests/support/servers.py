"""For tests with real servers of Debian, each in the foreground of a lab host.

Every HTTP server here answers `GET /NAME` with `This is /NAME` and writes one line a request:
`ADDRESS "REQUEST" STATUS`; so one suite serves them all. The mail servers log what they log.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from tests.support.process import eventually
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6, Lab, stop

PROXY_LINES: dict[str, tuple[str, ...]] = {
    "apache2": ("RemoteIPProxyProtocol On",),
    "nginx": (
        "listen 80 proxy_protocol;",
        "set_real_ip_from 172.17.42.1;",
        "real_ip_header proxy_protocol;",
    ),
    "haproxy": ("bind :80 accept-proxy",),
    "lighttpd": (
        'extforward.forwarder = ( "172.17.42.1" => "trust" )',
        'extforward.hap-PROXY = "enable"',
    ),
    "exim4": ("hosts_proxy = 172.17.42.1",),
    "dovecot": ("haproxy = yes", "haproxy_trusted_networks = 172.17.42.1"),
}
"""What makes each server read the PROXY header: the very lines that README.md tells people."""

FIELD_LINES: dict[str, tuple[str, ...]] = {
    "apache2": ("RemoteIPHeader X-Forwarded-For", "RemoteIPInternalProxy 172.17.42.1"),
    "nginx": (
        "listen 80;",
        "set_real_ip_from 172.17.42.1;",
        "real_ip_header X-Forwarded-For;",
    ),
    "lighttpd": (
        'extforward.forwarder = ( "172.17.42.1" => "trust" )',
        'extforward.headers = ( "X-Forwarded-For" )',
    ),
}
"""The same for X-Forwarded-For."""

PAGES = ("one", "two", "three")
"""The names that every HTTP server here knows."""


DIALLED = {CLIENT_V6: HOST_V6, CLIENT_V4: HOST_V4}
"""For each address of the client, the host's address that it connects to."""
STOCK_APACHE = (
    ". /etc/apache2/envvars; mkdir -p $APACHE_RUN_DIR $APACHE_LOCK_DIR; exec apache2 -DFOREGROUND"
)
STOCK_NGINX = "exec nginx -g 'daemon off;'"
"""Shell commands: servers as Debian configures them."""


def page(name: str) -> str:
    """What is at `/NAME`."""
    return f"This is /{name}\n"


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that others may enter: servers drop root, pytest's folders are root's."""
    folder = Path(tempfile.mkdtemp(prefix="v6fwd-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_listening(lab: Lab, host: str, port: int) -> bool:
    """Whether somebody listens on a TCP port of a lab host; asking leaves no trace in a log."""
    return bool(lab.run(host, "ss", "-Hltn", f"sport = :{port}").stdout)


class Server(ABC):
    """A server and its folder. `lines` are what makes it learn the client, if anything does."""

    program: ClassVar[str]
    port: ClassVar[int] = 80
    log_name: ClassVar[str] = "access.log"
    client: ClassVar[str] = ""
    """The program in clients/ that asks it; curl if there is none."""

    def __init__(self, folder: Path, lines: Mapping[str, tuple[str, ...]] = PROXY_LINES) -> None:
        self.folder = folder
        self.lines = lines
        self._process: subprocess.Popen[Any] | None = None

    @abstractmethod
    def config(self) -> str:
        """The text of its configuration."""

    @abstractmethod
    def command(self, config: Path) -> list[str]:
        """The command that runs it in the foreground."""

    @abstractmethod
    def questions(self, url_host: str) -> list[str]:
        """The arguments for curl, or for `client`; `url_host` is `[ADDRESS]:PORT`."""

    @abstractmethod
    def answer(self) -> str:
        """What that then prints."""

    @abstractmethod
    def entries(self, client: str) -> list[str]:
        """What its log then holds, each exactly once."""

    def named(self) -> str:
        """The lines of its log that say who a client is."""
        return self.log

    @property
    def log(self) -> str:
        """All that its log says so far."""
        path = self.folder / self.log_name
        return path.read_text() if path.exists() else ""

    @property
    def switch(self) -> tuple[str, ...]:
        """The lines for this program."""
        return self.lines.get(self.program, ())

    def start(self, lab: Lab, host: str = "container") -> None:
        """Run it until the lab ends; returns when it listens."""
        self.prepare()
        config = self.folder / f"{Path(self.program).name}.conf"
        config.write_text(self.config())
        with (self.folder / "output.log").open("wb") as output:
            options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output}
            process = lab.start(host, *self.command(config), stderr=subprocess.STDOUT, **options)
        self._process = process
        eventually(
            lambda: process.poll() is not None or is_listening(lab, host, self.port),
            f"{self.program} listens",
        )
        assert process.poll() is None, (self.folder / "output.log").read_text()

    def stop(self) -> None:
        """End it, so that its log is whole: lighttpd keeps lines back for 4 seconds otherwise."""
        assert self._process is not None
        stop(self._process)

    def prepare(self) -> None:
        """Make what it needs beside its configuration."""
        self.folder.mkdir(exist_ok=True)


class HttpServer(Server):
    """One that answers with pages."""

    def questions(self, url_host: str) -> list[str]:
        """All pages, over one connection, as the count of connections shows."""
        urls = [f"http://{url_host}/{name}" for name in PAGES]
        return ["--write-out", "%{http_code} %{num_connects}\n", *urls]

    def answer(self) -> str:
        """See Server."""
        connects = ("1", "0", "0")
        return "".join(
            f"{page(name)}200 {count}\n" for name, count in zip(PAGES, connects, strict=True)
        )

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f'{client} "GET /{name} HTTP/1.1" 200' for name in PAGES]

    def prepare(self) -> None:
        """See Server."""
        super().prepare()
        root = self.folder / "www"
        root.mkdir()
        for name in PAGES:
            (root / name).write_text(page(name))


class Apache(HttpServer):
    """Apache 2.4 with mod_remoteip; `%a` is the client, where `%h` may still be the peer."""

    program = "apache2"

    def config(self) -> str:
        """See Server."""
        modules = "/usr/lib/apache2/modules"
        return "\n".join(
            [
                f"ServerRoot {self.folder}",
                f"DefaultRuntimeDir {self.folder}",
                f"PidFile {self.folder}/apache.pid",
                f"ErrorLog {self.folder}/error.log",
                "ServerName container",
                "User www-data",
                "Group www-data",
                f"LoadModule mpm_event_module {modules}/mod_mpm_event.so",
                f"LoadModule authz_core_module {modules}/mod_authz_core.so",
                f"LoadModule remoteip_module {modules}/mod_remoteip.so",
                f'LogFormat "%a \\"%r\\" %>s" truth\nCustomLog {self.folder}/access.log truth',
                "Listen 80",
                "<VirtualHost *:80>",
                f"DocumentRoot {self.folder}/www",
                *self.switch,
                "</VirtualHost>\n",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["apache2", "-f", str(config), "-DFOREGROUND"]


class DestinationLogger(HttpServer):
    """One whose log also has the other address of the header: where the client connected to."""

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f"{entry} dialled {DIALLED[client]}\n" for entry in super().entries(client)]


class Nginx(DestinationLogger):
    """nginx; also takes files with PUT."""

    program = "nginx"

    def config(self) -> str:
        """See Server."""
        where = self.folder
        temp = "\n".join(
            f"{name}_temp_path {where}/tmp;"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        switch = "\n".join(self.switch or ("listen 80;",))
        return f"""
            daemon off; user www-data; worker_processes 1; pid {where}/nginx.pid;
            events {{ worker_connections 1024; }}
            http {{
                {temp}
                log_format truth
                    '$remote_addr "$request" $status dialled $proxy_protocol_server_addr';
                access_log {where}/access.log truth;
                error_log {where}/error.log;
                client_max_body_size 64m;
                server {{
                    {switch}
                    root {where}/www;
                    dav_methods PUT;
                }}
            }}
        """

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["nginx", "-c", str(config), "-e", str(self.folder / "error.log")]

    def prepare(self) -> None:
        """See Server."""
        super().prepare()
        (self.folder / "www").chmod(0o777)  # for PUT


class HAProxy(DestinationLogger):
    """HAProxy 2.6, which answers by itself; it writes its log to standard output."""

    program = "haproxy"
    log_name = "output.log"

    def config(self) -> str:
        """See Server."""
        switch = "\n    ".join(self.switch or ("bind :80",))
        return f"""
global
    log stdout format raw local0
    maxconn 6000
defaults
    mode http
    timeout client 60s
frontend container
    {switch}
    log global
    log-format '%ci %{{+Q}}r %ST dialled %[dst]'
    http-request return status 200 content-type text/plain lf-string "This is %[path]\\n"
"""

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["haproxy", "-db", "-f", str(config)]


class Lighttpd(HttpServer):
    """lighttpd with mod_extforward."""

    program = "lighttpd"

    def config(self) -> str:
        """See Server."""
        return "\n".join(
            [
                'server.modules = ( "mod_extforward", "mod_accesslog" )',
                "server.port = 80",
                f'server.document-root = "{self.folder}/www"',
                f'server.errorlog = "{self.folder}/error.log"',
                f'accesslog.filename = "{self.folder}/access.log"',
                'accesslog.format = "%h \\"%r\\" %s"',
                *self.switch,
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["lighttpd", "-D", "-f", str(config)]


class Exim(Server):
    """exim4-daemon-heavy (the light one has no PROXY support): it speaks first."""

    program = "exim4"
    port = 25
    log_name = "mainlog"

    def start(self, lab: Lab, host: str = "container") -> None:
        """See Server."""
        # It asks DNS for the client's name before it greets: let that fail at once.
        lab.ip(host, "route", "del", "default")
        super().start(lab, host)

    def config(self) -> str:
        """See Server."""
        return "\n".join(
            [
                "primary_hostname = mail.example",
                f"spool_directory = {self.folder}/spool",
                f"log_file_path = {self.folder}/%slog",
                f"pid_file_path = {self.folder}/exim.pid",
                "log_selector = +smtp_connection",
                "local_interfaces = 0.0.0.0",
                "tls_advertise_hosts =",
                "tls_verify_certificates =",
                *self.switch,
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["exim4", "-C", str(config), "-bdf"]

    def prepare(self) -> None:
        """See Server."""
        self.folder.chmod(0o777)  # its user makes the log and the spool

    def named(self) -> str:
        """The daemon logs the peer first, then the session begins and its header is read."""
        lines = self.log.splitlines()
        return "\n".join(line for line in lines if "TCP/IP connection count" not in line)

    def questions(self, url_host: str) -> list[str]:
        """Two commands in one session."""
        return ["--verbose", "--request", "NOOP", f"smtp://{url_host}/probe.example"]

    def answer(self) -> str:
        """See Server."""
        return "250 OK"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f"SMTP connection from (probe.example) [{client}] closed by QUIT"]


class Dovecot(Server):
    """Dovecot's IMAP: it speaks first, too."""

    program = "dovecot"
    port = 143
    log_name = "mail.log"

    def config(self) -> str:
        """See Server."""
        haproxy, trusted = self.switch or ("haproxy = no", "")
        return f"""
            base_dir = {self.folder}/run
            log_path = {self.folder}/mail.log
            protocols = imap
            listen = 0.0.0.0
            ssl = no
            disable_plaintext_auth = no
            mail_location = maildir:{self.folder}/mail
            mail_uid = www-data
            mail_gid = www-data
            first_valid_uid = 1
            {trusted}
            passdb {{
                driver = static
                args = password=secret
            }}
            userdb {{
                driver = static
                args = uid=www-data gid=www-data home={self.folder}/mail
            }}
            service imap-login {{
                inet_listener imap {{
                    port = 143
                    {haproxy}
                }}
            }}
        """

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["dovecot", "-F", "-c", str(config)]

    def prepare(self) -> None:
        """See Server."""
        mail = self.folder / "mail"
        mail.mkdir()
        mail.chmod(0o777)

    def questions(self, url_host: str) -> list[str]:
        """Log in and list the mailboxes."""
        return ["--user", "probe:secret", f"imap://{url_host}/"]

    def answer(self) -> str:
        """See Server."""
        return "INBOX"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f"Login: user=<probe>, method=PLAIN, rip={client}, "]
