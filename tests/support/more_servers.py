"""For tests with real servers of Debian beside those of servers.py and dns_servers.py.

Each has `lines`, what makes it read the PROXY header; docs/servers.md tells people the same ones.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.dns_servers import ADDRESS, NAME, DnsServer
from tests.support.engine import CACHE
from tests.support.servers import Nginx, Server
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, Lab

MORE_LINES: dict[str, tuple[str, ...]] = {
    "nginx-stream": ("listen 80 proxy_protocol;", "set_real_ip_from 172.17.42.1;"),
    "varnishd": ("-a :80,PROXY",),
    "squid": ("http_port 80 require-proxy-header", "proxy_protocol_access allow gateway"),
    "postfix": ("-o smtpd_upstream_proxy_protocol=haproxy",),
    "gunicorn": ("--proxy-protocol", "--proxy-allow-from 172.17.42.1"),
}
"""What makes each of them read the header of a sender at the bridge's address."""


class NginxStream(Nginx):
    """nginx as a TCP relay, whose log has the client of the header; it answers by itself."""

    def config(self) -> str:
        """See Server."""
        switch = "\n".join(self.lines.get("nginx-stream", ("listen 80;",)))
        return f"""
            load_module /usr/lib/nginx/modules/ngx_stream_module.so;
            daemon off; user www-data; worker_processes 1; pid {self.folder}/nginx.pid;
            events {{ worker_connections 64; }}
            stream {{
                log_format truth '$remote_addr $status';
                access_log {self.folder}/access.log truth;
                error_log {self.folder}/error.log;
                server {{
                    {switch}
                    proxy_pass 127.0.0.1:81;
                }}
            }}
            http {{
                access_log off;
                server {{
                    listen 127.0.0.1:81;
                    root {self.folder}/www;
                }}
            }}
        """

    def entries(self, client: str) -> list[str]:
        """One connection, one line."""
        return [f"{client} 200\n"]


class Varnish(Server):
    """Varnish, which answers by itself; varnishncsa prints its log, which is in shared memory."""

    program = "varnishd"

    def config(self) -> str:
        """See Server."""
        return """
vcl 4.1;
backend none none;
sub vcl_recv { return (synth(200, "OK")); }
sub vcl_synth {
    set resp.body = "client " + client.ip + {"
"};
    return (deliver);
}
"""

    def command(self, config: Path) -> list[str]:
        """See Server."""
        listen = self.lines.get(self.program, ("-a :80",))[0].split()
        return ["varnishd", "-F", "-n", str(self.folder / "run"), "-f", str(config), *listen,
                "-s", "malloc,16m", "-T", "none", "-j", "none"]  # fmt: skip

    def start(self, lab: Lab, host: str = "container") -> None:
        """See Server."""
        super().start(lab, host)
        self._lab, self._host = lab, host

    @property
    def log(self) -> str:
        """All that it says so far; a varnishncsa that follows it would miss what came before."""
        words = ("varnishncsa", "-d", "-n", str(self.folder / "run"), "-F", '%h "%r" %s')
        return self._lab.run(self._host, *words).stdout

    def questions(self, url_host: str) -> list[str]:
        """See Server."""
        return [f"http://{url_host}/"]

    def answer(self) -> str:
        """See Server."""
        return "client "

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f'{client} "GET ']


class Squid(Server):
    """Squid; what it is asked for as a server, it refuses with a page and a line in its log."""

    program = "squid"

    def config(self) -> str:
        """See Server."""
        port, *access = self.lines.get(self.program, ("http_port 80",))
        return "\n".join(
            [
                "acl gateway src 172.17.42.1",
                port,
                *access,
                "acl everybody src all",
                "http_access deny everybody",
                f"access_log stdio:{self.folder}/access.log",
                f"cache_log {self.folder}/cache.log",
                f"pid_filename {self.folder}/squid.pid",
                "cache_effective_user proxy",
                "cache deny all",
                "shutdown_lifetime 0 seconds",
                "visible_hostname container",
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See Server."""
        return ["squid", "-N", "-n", f"v6{abs(hash(str(self.folder))) % 10**8}", "-f", str(config)]

    def prepare(self) -> None:
        """See Server."""
        super().prepare()
        self.folder.chmod(0o777)

    def questions(self, url_host: str) -> list[str]:
        """See Server."""
        return [f"http://{url_host}/"]

    def answer(self) -> str:
        """See Server."""
        return "squid"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f" {client} "]


class Gunicorn(Server):
    """gunicorn: v1 alone, and connections without a header as well."""

    program = "gunicorn"

    def config(self) -> str:
        """The application, which a module is."""
        (self.folder / "answers.py").write_text(
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
            "    return [b'hello\\n']\n"
        )
        return ""

    def command(self, config: Path) -> list[str]:  # noqa: ARG002
        """See Server."""
        lines = self.lines.get(self.program, ())
        return ["gunicorn", "--chdir", str(self.folder), "--bind", "0.0.0.0:80",
                "--access-logfile", str(self.folder / "access.log"),
                "--access-logformat", '%(h)s "%(r)s" %(s)s',
                *(word for line in lines for word in line.split()), "answers:app"]  # fmt: skip

    def questions(self, url_host: str) -> list[str]:
        """See Server."""
        return [f"http://{url_host}/one"]

    def answer(self) -> str:
        """See Server."""
        return "hello\n"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f'{client} "GET /one HTTP/1.1" 200']


class Postfix(Server):
    """Postfix, unpacked by scripts/install-postfix: its master, and one smtpd on port 25."""

    root = CACHE / "postfix" / "usr/lib/postfix"
    program = str(root / "sbin/master")
    port = 25
    log_name = "mail.log"
    owner = "proxy"
    """Of Debian's base; a user without privileges."""

    def config(self) -> str:
        """main.cf; it asks no DNS who a client is, and knows no user."""
        return "\n".join(
            [
                "compatibility_level = 3.6",
                f"queue_directory = {self.folder}/queue",
                f"data_directory = {self.folder}/data",
                f"daemon_directory = {self.root}/sbin",
                f"shlib_directory = {self.root}",
                f"import_environment = MAIL_CONFIG LD_LIBRARY_PATH={self.root}",
                f"mail_owner = {self.owner}",
                "setgid_group = games",
                f"maillog_file = {self.folder}/mail.log",
                f"maillog_file_prefixes = {self.folder}",
                "myhostname = mail.example",
                "smtpd_peername_lookup = no",
                "local_recipient_maps =",
                "alias_maps =",
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:  # noqa: ARG002
        """See Server."""
        config_folder = self.folder / "etc"
        config_folder.mkdir()
        (config_folder / "main.cf").write_text(self.config())
        options = " ".join(self.lines.get("postfix", ()))
        (config_folder / "master.cf").write_text(
            f"smtp inet n - n - - smtpd {options}\n"
            "postlog unix-dgram n - n - 1 postlogd\n"
            "proxymap unix - - n - - proxymap\n"
            "anvil unix - - n - 1 anvil\n"
            "rewrite unix - - n - - trivial-rewrite\n"
        )
        environment = (f"LD_LIBRARY_PATH={self.root}", f"MAIL_CONFIG={config_folder}")
        return ["env", *environment, self.program, "-c", str(config_folder), "-d"]

    def prepare(self) -> None:
        """Make the queue, which `postfix check` would."""
        super().prepare()
        (self.folder / "queue" / "pid").mkdir(parents=True)
        for name in ("data", "queue/private", "queue/public"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, self.owner)

    def questions(self, url_host: str) -> list[str]:
        """Two commands in one session."""
        return ["--verbose", "--request", "NOOP", f"smtp://{url_host}/probe.example"]

    def answer(self) -> str:
        """See Server."""
        return "250 2.0.0 Ok"

    def entries(self, client: str) -> list[str]:
        """See Server."""
        return [f" connect from unknown[{client}]"]


class PdnsRecursor(DnsServer):
    """PowerDNS Recursor: every query from the sender needs the header."""

    program = "pdns_recursor"

    def config(self) -> str:
        """See DnsServer."""
        hosts = self.folder / "hosts"
        hosts.write_text(f"{ADDRESS} {NAME}\n")
        return "\n".join(
            [
                f"config-dir={self.folder}",
                f"socket-dir={self.folder}",
                "local-address=0.0.0.0",
                "allow-from=0.0.0.0/0,::/0",
                "export-etc-hosts=yes",
                f"etc-hosts-file={hosts}",
                "dnssec=off",
                "quiet=no",
                "threads=1",
                "security-poll-suffix=",
                *self.lines,
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See DnsServer."""
        config.rename(self.folder / "recursor.conf")
        return [self.program, f"--config-dir={self.folder}", "--daemon=no", "--write-pid=no"]


class PdnsServer(DnsServer):
    """PowerDNS Authoritative Server: every query from the sender needs the header."""

    program = "pdns_server"

    def config(self) -> str:
        """See DnsServer."""
        zone, zones = self.folder / "example.org.zone", self.folder / "named.conf"
        zone.write_text(
            "$ORIGIN example.org.\n@ 60 SOA ns a 1 3600 600 86400 60\n@ NS ns\n"
            f"ns A 192.0.2.1\nwww A {ADDRESS}\n"
        )
        zones.write_text(f'zone "example.org" {{ type master; file "{zone}"; }};\n')
        return "\n".join(
            [
                "launch=bind",
                f"bind-config={zones}",
                f"socket-dir={self.folder}",
                "local-address=0.0.0.0",
                "log-dns-queries=yes",
                "loglevel=5",
                "security-poll-suffix=",
                *self.lines,
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See DnsServer."""
        config.rename(self.folder / "pdns.conf")
        options = ("--daemon=no", "--guardian=no", "--disable-syslog=yes", "--write-pid=no")
        return [self.program, f"--config-dir={self.folder}", *options]


class Dnsdist(DnsServer):
    """dnsdist, which answers by itself."""

    program = "dnsdist"

    def config(self) -> str:
        """See DnsServer."""
        log = self.folder / "query.log"  # as text, appended, at once, not only when verbose
        return "\n".join(
            [
                'setLocal("0.0.0.0:53")',
                'setACL({"0.0.0.0/0", "::/0"})',
                *self.lines,
                'setSecurityPollSuffix("")',
                f'addAction(AllRule(), LogAction("{log}", false, true, false, false))',
                f'addAction(QNameRule("{NAME}."), SpoofAction("{ADDRESS}"))',
                "addAction(AllRule(), RCodeAction(DNSRCode.REFUSED))",
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See DnsServer."""
        return [self.program, "--supervised", "--disable-syslog", "-C", str(config)]


class KnotResolver(DnsServer):
    """Knot Resolver, whose policy answers the lab's clients alone."""

    program = "kresd"

    def config(self) -> str:
        """See DnsServer."""
        answer = f"{{ [kres.type.A] = {{ rdata = kres.str2ip('{ADDRESS}'), ttl = 60 }} }}"
        return "\n".join(
            [
                "net.listen('0.0.0.0', 53, { kind = 'dns' })",
                *self.lines,
                "modules.load('view')",
                *(
                    f"view:addr('{client}', policy.all(policy.ANSWER({answer})))"
                    for client in (CLIENT_V6, CLIENT_V4)
                ),
                "view:addr('::/0', policy.all(policy.REFUSE))",
                "view:addr('0.0.0.0/0', policy.all(policy.REFUSE))",
                "trust_anchors.remove('.')",
                "cache.size = 10 * MB",
                "",
            ]
        )

    def command(self, config: Path) -> list[str]:
        """See DnsServer."""
        return [self.program, "-n", "-c", str(config), str(self.folder)]
