"""For tests with real servers that run twice in a lab: with the lines that make them read the PROXY
header, and without.

Those in the host's namespace see v6fwd at the same address as those in the container. Neither is
started again for another question.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tests.support.engine import CACHE
from tests.support.process import eventually
from tests.support.servers import Server, is_listening
from v6fwd.demo.lab import Lab


def to_say(url_host: str, *steps: bytes) -> list[str]:
    """Arguments for clients/say.py: what to say, and what to wait for, in turn."""
    host, _, port = url_host.rpartition(":")
    marked = [f"{'-' if number % 2 else '+'}{step.hex()}" for number, step in enumerate(steps)]
    return [host.strip("[]"), port, "1", *marked]


class MariaDB(Server):
    """MariaDB without tables of users, so that everybody may log in; its log has who did."""

    program = "mariadbd"
    port = 3306
    log_name = "general.log"
    client = "say"

    def config(self) -> str:
        """See Server."""
        where = self.folder
        return "\n".join(
            [
                "[mariadbd]",
                "user = nobody",
                f"datadir = {where}/data",
                f"socket = {where}/socket",
                f"pid-file = {where}/pid",
                f"log-error = {where}/error.log",
                "general-log",
                f"general-log-file = {where}/general.log",
                "bind-address = 0.0.0.0",
                "skip-grant-tables",
                "skip-networking = 0",  # which the line above would turn off
                "skip-name-resolve",
                "skip-innodb",
                "default-storage-engine = Aria",
                "performance-schema = 0",
                *self.switch,
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["mariadbd", f"--defaults-file={config}"]

    def prepare(self) -> None:
        """See Server."""
        super().prepare()
        self.folder.chmod(0o777)
        (self.folder / "data").mkdir(mode=0o777)
        (self.folder / "data").chmod(0o777)

    def questions(self, url_host: str) -> list[str]:
        """Log in when the greeting has come, ask for the user, leave."""
        flags = (0x8201).to_bytes(4, "little")  # PROTOCOL_41, SECURE_CONNECTION, LONG_PASSWORD
        login = flags + (1 << 24).to_bytes(4, "little") + b"\x21" + bytes(23) + b"probe\0\0"
        query = b"\x03select user()"
        return to_say(
            url_host,
            b"",
            b"mysql_native_password",
            _packet(1, login) + _packet(0, query),
            b"probe@",
            _packet(0, b"\x01"),
        )

    def answer(self) -> str:
        """See Server."""
        return "probe@"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f"\tprobe@{client} on "]


def _packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


class Coturn(Server):
    """coturn, asked by STUN over TCP for the address that it sees."""

    program = "turnserver"
    port = 3478
    log_name = "output.log"
    client = "say"

    def config(self) -> str:
        """See Server."""
        return "\n".join(
            [
                "listening-ip=0.0.0.0",
                "no-tls",
                "no-dtls",
                "no-cli",
                "no-auth",
                f"userdb={self.folder}/turndb",
                f"pidfile={self.folder}/pid",
                "log-file=stdout",
                "simple-log",
                "verbose",
                *self.switch,
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["stdbuf", "-oL", "turnserver", "-c", str(config)]

    def questions(self, url_host: str) -> list[str]:
        """A Binding Request (RFC 8489, 6.1)."""
        request = bytes.fromhex("000100002112a442") + b"v6fwd-tests."
        return to_say(url_host, request, b"Coturn")

    def answer(self) -> str:
        """See Server."""
        return "Coturn"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        named = f"[{client}]" if ":" in client else client
        return [f"TCP socket closed remotely {named}:"]

    def named(self) -> str:
        """It logs the peer first."""
        return "\n".join(line for line in self.log.splitlines() if "connected to" not in line)


class InspIRCd(Server):
    """InspIRCd, which logs every user."""

    program = "inspircd"
    port = 6667
    log_name = "irc.log"
    client = "say"

    def config(self) -> str:
        """See Server."""
        plain = '<bind address="0.0.0.0" port="6667" type="clients">'
        return "\n".join(
            [
                '<server name="irc.example" description="tests" network="Example">',
                '<admin name="admin" nick="admin" email="admin@irc.example">',
                *(self.switch or (plain,)),
                '<connect allow="*" resolvehostnames="no" localmax="99" globalmax="99">',
                '<files motd="/etc/inspircd/inspircd.motd">',
                f'<pid file="{self.folder}/pid">',
                f'<log method="file" type="CONNECT" target="{self.folder}/irc.log" flush="1">',
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["inspircd", f"--config={config}", "--nofork", "--runasroot"]

    def questions(self, url_host: str) -> list[str]:
        """Register under whatever name the server likes, and leave."""
        hello = b"NICK 0\r\nUSER probe 0 * :probe\r\n"
        return to_say(url_host, hello, b" 001 ", b"QUIT\r\n", b"ERROR")

    def answer(self) -> str:
        """See Server."""
        return "Welcome to the Example IRC Network"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f"!probe@{client} ({client}) [probe"]


class Ejabberd(Server):
    """ejabberd for anonymous users, as ejabberdctl starts it, but as no node: that needs epmd."""

    program = "erl"
    port = 5222
    log_name = "ejabberd.log"
    client = "say"

    def config(self) -> str:
        """See Server."""
        switch = "".join(f"    {line}\n" for line in self.switch)
        return (
            "hosts: [chat.example]\n"
            "listen:\n"
            '  - port: 5222\n    ip: "0.0.0.0"\n    module: ejabberd_c2s\n'
            f"{switch}"
            "auth_method: [anonymous]\n"
            "allow_multiple_connections: true\n"
            "modules: {}\n"
        )

    def command(self, config: Path) -> list[str]:
        """See Server."""
        yaml = config.rename(self.folder / "ejabberd.yml")
        (self.folder / "mnesia").mkdir(mode=0o777)
        (self.folder / "mnesia").chmod(0o777)
        self.folder.chmod(0o777)
        settings = {
            "EJABBERD_CONFIG_PATH": yaml,
            "EJABBERD_LOG_PATH": self.folder / "ejabberd.log",
            "ERL_CRASH_DUMP": self.folder / "crash.dump",
            "ERL_LIBS": "/usr/lib/x86_64-linux-gnu",
            "HOME": self.folder,
        }
        environment = [f"{name}={value}" for name, value in settings.items()]
        return ["env", *environment, "setpriv", "--reuid=nobody", "--regid=nogroup",
                "--clear-groups", "erl", "-noinput", "-mnesia", "dir",
                f'"{self.folder}/mnesia"', "-s", "ejabberd"]  # fmt: skip

    def questions(self, url_host: str) -> list[str]:
        """Open a stream, and log in as nobody."""
        stream = (
            b"<?xml version='1.0'?><stream:stream to='chat.example' version='1.0'"
            b" xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        login = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>"
        return to_say(url_host, stream, b"</stream:features>", login, b"<success")

    def answer(self) -> str:
        """See Server."""
        return "<success"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f" by anonymous backend from {client}\n"]


class OpenSMTPD(Server):
    """OpenSMTPD, unpacked by scripts/install-mail, with its users in files of the test's own."""

    root = CACHE / "opensmtpd"
    program = str(root / "usr/sbin/smtpd")
    port = 25
    log_name = "output.log"

    def config(self) -> str:
        """See Server."""
        listen = self.lines.get("smtpd", ("listen on 0.0.0.0 port 25",))
        return "\n".join([*listen, "match from any for any reject", ""])

    def command(self, config: Path) -> list[str]:
        """Its user and its folders are compiled in."""
        where = self.folder
        users = "opensmtpd:x:{0}:{0}::/:/bin/false\nopensmtpq:x:{1}:{1}::/:/bin/false\n"
        for name, more in (("passwd", users), ("group", "opensmtpd:x:{0}:\nopensmtpq:x:{1}:\n")):
            (where / name).write_text(Path("/etc", name).read_text() + more.format(64991, 64992))
        (where / "resolv.conf").write_text("nameserver 127.0.0.1\n")  # nobody: it asks in vain
        script = f"""
            for name in passwd group resolv.conf; do mount --bind {where}/$name /etc/$name; done
            mount -t tmpfs none /run
            mount -t tmpfs none /var
            ln -s /run /var/run
            mkdir -p -m 711 /var/lib/opensmtpd/empty /var/spool/smtpd
            exec {self.program} -d -f {config}
        """
        return ["unshare", "--mount", "sh", "-ec", script]

    def questions(self, url_host: str) -> list[str]:
        """Two commands in one session."""
        return ["--verbose", "--request", "NOOP", f"smtp://{url_host}/probe.example"]

    def answer(self) -> str:
        """See Server."""
        return "250 2.0.0"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        named = f"[{client}]" if ":" in client else client
        return [f" smtp connected address={named} "]

    def named(self) -> str:
        """It logs the peer before it reads the header."""
        lines = self.log.splitlines()
        return "\n".join(line for line in lines if " smtp connected " in line)


class Hitch(Server):
    """hitch, which ends TLS, passes the header on, and logs nobody; nginx behind it does."""

    program = "hitch"
    port = 443

    def config(self) -> str:
        """See Server."""
        where = self.folder
        return "\n".join(
            [
                'frontend = { host = "0.0.0.0" port = "443" }',
                'backend = "[127.0.0.1]:81"',
                f'pem-file = "{where}/both.pem"',
                "workers = 1",
                'user = "nobody"',
                'group = "nogroup"',
                *(self.switch or ("write-proxy-v2 = on",)),
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["hitch", f"--config={config}"]

    def start(self, lab: Lab, host: str = "container") -> None:
        """Start nginx first."""
        where = self.folder
        self.prepare()
        (where / "nginx.conf").write_text(f"""
            daemon off; user www-data; worker_processes 1; pid {where}/nginx.pid;
            events {{ worker_connections 64; }}
            http {{
                log_format truth '$remote_addr "$request" $status';
                access_log {where}/access.log truth;
                server {{
                    listen 127.0.0.1:81 proxy_protocol;
                    set_real_ip_from 127.0.0.1;
                    real_ip_header proxy_protocol;
                    location / {{ return 200 "hello"; }}
                }}
            }}
        """)
        quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        lab.start(host, "nginx", "-c", f"{where}/nginx.conf", "-e", f"{where}/error.log", **quiet)
        eventually(lambda: is_listening(lab, host, 81), "nginx listens")
        super().start(lab, host)

    def prepare(self) -> None:
        """Make a key and its certificate."""
        super().prepare()
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        words = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=container",
                 "-keyout", str(key), "-out", str(certificate))  # fmt: skip
        subprocess.run(words, check=True, capture_output=True)
        (self.folder / "both.pem").write_text(key.read_text() + certificate.read_text())

    def questions(self, url_host: str) -> list[str]:
        """See Server."""
        return ["--insecure", f"https://{url_host}/one"]

    def answer(self) -> str:
        """See Server."""
        return "hello"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f'{client} "GET /one HTTP/1.1" 200\n']


PAIRED: dict[str, tuple[type[Server], str]] = {
    "MariaDB": (MariaDB, "mariadbd"),
    "coturn": (Coturn, "turnserver"),
    "InspIRCd": (InspIRCd, "inspircd"),
    "ejabberd": (Ejabberd, "erl"),
    "OpenSMTPD": (OpenSMTPD, "smtpd"),
    "hitch": (Hitch, "hitch"),
}
"""Each section's server in docs/servers.md, and the name of its lines."""
