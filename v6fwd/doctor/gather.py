"""Reads the host: every source in a thread of its own, none waited for longer than DEADLINE."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v6fwd.config import ConfigError, Control, load
from v6fwd.config.rules import Rule
from v6fwd.config.settings import Docker
from v6fwd.daemon.ask import AskError, ask
from v6fwd.docker.daemon_json import KEY
from v6fwd.docker.engine.client import EngineApi, EngineError
from v6fwd.docker.install import DAEMON_JSON, SHIM, rootless_daemon_json
from v6fwd.docker.shim.published import PublishedPort, published_ports
from v6fwd.doctor.configs import ConfigFile, read_configs
from v6fwd.doctor.denials import read_denials
from v6fwd.doctor.facts import DaemonJson, Engine, Facts, Port, Unknown
from v6fwd.errors import RelayError, reason
from v6fwd.netns.namespace import Namespace
from v6fwd.netns.owners import Process, named, owners, read_process, shares_network
from v6fwd.netns.view import Device, Listening, ListeningSockets, View

DEADLINE = 2.2
"""Seconds for all sources together: `doctor` answers within 3 s."""
ENGINE_PATIENCE = 1.5
"""Seconds for the Engine, which has several questions to answer."""
DETAILS = 100
"""Containers that are looked into one by one."""
_LATE = Unknown(f"no answer within {DEADLINE} s")


def _daemon_json() -> Path:
    own = rootless_daemon_json()
    return own if os.geteuid() and own.exists() else DAEMON_JSON


def _engine_host() -> str:
    """As for all of v6fwd; where nobody says which, the user's rootless Docker if he has one."""
    own = Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere"), "docker.sock")
    is_meant = os.geteuid() and "DOCKER_HOST" not in os.environ and own.exists()
    return f"unix://{own}" if is_meant else Docker().host


@dataclass(frozen=True, slots=True)
class Where:
    """Where things are; tests have their own places."""

    root: Path = Path("/")
    daemon_json: Path = field(default_factory=_daemon_json)
    engine: str = field(default_factory=_engine_host)
    control: str = Control().socket
    config: Path = Path("/etc/v6fwd/v6fwd.toml")
    """As the units of contrib/ have it."""

    @property
    def proc(self) -> Path:
        """Where processes and sysctls are."""
        return self.root / "proc"


def gather(ports: Iterable[Port] = (), where: Where | None = None) -> Facts:
    """Everything, or why it could not be looked at."""
    where = where or Where()
    got = _at_once(
        {
            "network": _network,
            "owners": lambda: _listening(where),
            "nft": _nft,
            "ip6tables": lambda: _command("ip6tables-save"),
            "iptables": lambda: _command("iptables-save"),
            "denials": lambda: read_denials(where.root),
            "published": lambda: _published(where),
            "dockerd": lambda: tuple(named("dockerd", where.proc)),
            "engine": lambda: _docker(where.engine, where.proc),
            "status": lambda: _status(where.control),
        }
    )
    devices, addresses, routes, rules = _or(got["network"], ((), (), (), ()))
    listening, whose = _or(got["owners"], (got["owners"], {}))
    daemon_json = read_daemon_json(where.daemon_json)
    rules_of_file, config_error = read_rules(where.config)
    status = got["status"]
    engine, inside, configs = _or(got["engine"], (got["engine"], {}, {}))
    return Facts(
        named=tuple(ports),
        sysctls=read_sysctls(where.proc, devices),
        devices=devices,
        addresses=addresses,
        routes=routes,
        rules=rules,
        listening=listening,
        owners=whose,
        nft=got["nft"],
        ip6tables=got["ip6tables"],
        iptables=got["iptables"],
        denials=got["denials"],
        daemon_json=daemon_json,
        dockerd=_or(got["dockerd"], ()),
        published=_or(got["published"], ()),
        engine=engine,
        inside=inside,
        configs=configs,
        docker_rules=rules_of_file,
        config_error=config_error,
        status=status,
        daemon=_daemon(status, where.proc),
        shim_installed=_has_shim(daemon_json),
        proxy_missing=_missing_proxy(daemon_json),
    )


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if isinstance(value, Unknown) else value


def _at_once(sources: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Every source's value; Unknown for those that fail or are late."""
    got: dict[str, Any] = {}

    def read(name: str, source: Callable[[], Any]) -> None:
        try:
            got[name] = source()
        except OSError as error:
            got[name] = Unknown(reason(error))

    threads = [
        threading.Thread(target=read, args=item, name=item[0], daemon=True)
        for item in sources.items()
    ]
    until = time.monotonic() + DEADLINE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return {name: got.get(name, _LATE) for name in sources}


# ---- the network ---------------------------------------------------------------------------


def _network() -> Any:
    with contextlib.closing(View()) as view:
        parts = (view.devices, view.device_addresses, view.routes, view.rules)
        return tuple(tuple(part()) for part in parts)


def _listening(where: Where) -> Any:
    with contextlib.closing(ListeningSockets()) as sockets:
        found: tuple[Listening, ...] = tuple(sockets.all())
    return found, owners({socket.inode for socket in found}, where.proc)


def read_sysctls(proc: Path, devices: Iterable[Device]) -> dict[str, str]:
    """What decides about IPv6; those that are not there are left out."""
    names = ["all", "default", *(device.name for device in devices)]
    paths = ["net/ipv6/bindv6only", "net/ipv4/ip_forward"]
    paths += [
        f"net/ipv6/conf/{name}/{key}"
        for name in names
        for key in ("disable_ipv6", "forwarding", "accept_ra")
    ]
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found[path] = (proc / "sys" / path).read_text().strip()
    return found


def _nft() -> tuple[Mapping[str, Any], ...] | Unknown:
    text = _command("nft", "-j", "list", "ruleset")
    if isinstance(text, Unknown):
        return text
    try:
        return tuple(json.loads(text)["nftables"]) if text.strip() else ()
    except (ValueError, KeyError):
        return Unknown("nft -j: its answer is not JSON")


def _command(*words: str) -> str | Unknown:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            env={**os.environ, "PATH": path, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return Unknown(f"there is no {words[0]}")
    except subprocess.TimeoutExpired:
        return _LATE
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return Unknown(f"{words[0]}: {said[0]}")
    return done.stdout


# ---- Docker and v6fwd ----------------------------------------------------------------------


def read_daemon_json(path: Path) -> DaemonJson | None:
    """dockerd's configuration; None where there is no file."""
    try:
        text, written = path.read_text(), path.stat().st_mtime
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return DaemonJson(str(path), error=str(error))
    try:
        values = json.loads(text) if text.strip() else {}
    except ValueError as error:
        return DaemonJson(str(path), written=written, error=f"it is not JSON: {error}")
    if not isinstance(values, dict):
        return DaemonJson(str(path), written=written, error="it is not a JSON object")
    return DaemonJson(str(path), values, written)


def read_rules(path: Path) -> tuple[tuple[Rule, ...] | Unknown, str]:
    """The rules for Docker's ports in v6fwd's file, and what is wrong with it. Raises nothing."""
    if not path.exists():
        return (), ""
    if not os.access(path, os.R_OK):
        return Unknown(f"{path}: permission denied"), ""
    try:
        return load(path).docker.rules, ""
    except ConfigError as error:
        return Unknown(f"{path} has mistakes"), str(error)


def _has_shim(file: DaemonJson | None) -> bool:
    return file is not None and os.path.basename(str(file.values.get(KEY, ""))) == SHIM


def _missing_proxy(file: DaemonJson | None) -> str:
    path = str(file.values.get(KEY, "")) if file is not None else ""
    return "" if not path or (os.path.isfile(path) and os.access(path, os.X_OK)) else path


def _published(where: Where) -> tuple[PublishedPort, ...]:
    return tuple(
        port for port in published_ports(where.proc) if shares_network(port.pid, where.proc)
    )


def _docker(
    host: str, proc: Path
) -> tuple[
    Engine | Unknown | None, dict[str, tuple[Listening, ...]], dict[str, tuple[ConfigFile, ...]]
]:
    """What the Engine says, who listens in its containers, and their configurations."""
    engine = _engine(host)
    listening: dict[str, tuple[Listening, ...]] = {}
    configs: dict[str, tuple[ConfigFile, ...]] = {}
    for container, details in engine.details.items() if isinstance(engine, Engine) else ():
        pid = (details.get("State") or {}).get("Pid")
        if pid:
            with contextlib.suppress(RelayError, OSError):  # not root, or it has ended
                listening[container] = _listening_in(str(pid))
            configs[container] = read_configs(proc / str(pid) / "root")
    return engine, listening, configs


def _listening_in(pid: str) -> tuple[Listening, ...]:
    """This thread alone enters the container's network, and leaves it again."""
    with contextlib.ExitStack() as stack:
        namespace = stack.enter_context(contextlib.closing(Namespace(pid)))
        stack.enter_context(namespace.entered())
        sockets = stack.enter_context(contextlib.closing(ListeningSockets()))
        return tuple(sockets.all())


def _engine(host: str) -> Engine | Unknown | None:
    if not Path(host.removeprefix("unix://")).exists():
        return None
    try:
        return asyncio.run(_ask_engine(EngineApi(host)))
    except EngineError as error:
        return Unknown(str(error))
    except TimeoutError:
        return Unknown(f"Docker at {host} does not answer")


async def _ask_engine(api: EngineApi) -> Engine:
    async with asyncio.timeout(ENGINE_PATIENCE):
        containers = await api.containers()
        networks, info = await asyncio.gather(api.get("/networks"), api.get("/info"))
    running = [each["Id"] for each in containers if each.get("State") == "running"][:DETAILS]
    details: dict[str, Any] = {}

    async def look(container: str) -> None:
        with contextlib.suppress(EngineError):
            details[container] = await api.get(f"/containers/{container}/json")

    with contextlib.suppress(TimeoutError):  # what is there by then is looked at
        async with asyncio.timeout(ENGINE_PATIENCE / 3):
            await asyncio.gather(*map(look, running))
    return Engine(api.host, tuple(containers), tuple(networks or ()), info or {}, details)


def _status(path: str) -> Mapping[str, Any] | Unknown | None:
    if not Path(path).exists():
        return None
    try:
        (answer,) = ask(path, {"do": "status"})
    except AskError as error:
        return Unknown(str(error)) if "permission" in str(error) else None
    except ValueError:
        return Unknown(f"what answers at {path} is not v6fwd")
    return answer


def _daemon(status: object, proc: Path) -> Process | None:
    if not isinstance(status, Mapping):
        return None
    return read_process(int(status.get("pid", 0)), proc)
