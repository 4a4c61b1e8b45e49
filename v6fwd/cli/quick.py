"""Reads the usual command lines of what runs for long, `forward` and `serve`, without click.

click and the forty options of `forward` take a third of its start, and 2.5 MB for as long as it
runs. Whatever is not read here, mistakes and rare options among it, is for click to read and tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from v6fwd.log import LogFormat
from v6fwd.model import (
    ClientIP,
    Endpoint,
    Forward,
    Guard,
    Limits,
    RelayEngine,
    pair_up,
    parse_networks,
    parse_rate,
    parse_seconds,
    refuse_misfits,
    refuse_twins,
)
from v6fwd.model.lean import Any, NamedTuple

Kinds = Mapping[str, Callable[[str], Any]]

_maybe_never = partial(parse_seconds, zero=True)
_time = partial(parse_seconds, zero=False)
LIMITS: Kinds = {
    "--connect-timeout": _time,
    "--drain-timeout": _maybe_never,
    "--interrupt-timeout": _maybe_never,
    "--idle-timeout": _maybe_never,
    "--header-timeout": _time,
    "--half-closed-timeout": _maybe_never,
    "--udp-timeout": _time,
}
GUARD: Kinds = {
    "--allow": parse_networks,
    "--deny": parse_networks,
    "--client-rate": parse_rate,
}
FORWARD: Kinds = {"--client-ip": ClientIP, "--accept-proxy": parse_networks}
PROCESS: Kinds = {"--engine": RelayEngine, "--log-format": LogFormat}
FLAG = "--log-flows"
_KINDS = {**LIMITS, **GUARD, **FORWARD, **PROCESS}


class CommandLine(NamedTuple):
    """What was read. A dataclass takes 0.2 ms longer to make."""

    forwards: list[Forward]
    limits: Limits
    log_flows: bool
    log_format: LogFormat
    engine: RelayEngine


def read(words: Sequence[str]) -> CommandLine | None:
    """Read the words behind `forward`; None: click has to."""
    options: dict[str, Any] = {}
    places: list[str] = []
    rest = iter(words)
    try:
        for word in rest:
            if not word.startswith("-"):
                places.append(word)
                continue
            name, equals, value = word.partition("=")
            if name in options:
                return None
            if word == FLAG:
                options[name] = True
                continue
            if not equals:
                value = next(rest, "-")
            if name not in _KINDS or value.startswith("-"):
                return None
            options[name] = _KINDS[name](value)
        return _command_line(places, options)
    except ValueError:  # an InputError, or no member of an enum
        return None


def pairs_of(places: Sequence[str]) -> list[tuple[Endpoint, Endpoint]]:
    """Pair each LISTEN with the TARGET behind it, port by port. Raises InputError."""
    pairs = [pair_up(*places[at : at + 2]) for at in range(0, len(places), 2)]
    return [pair for some in pairs for pair in some]


def _command_line(places: Sequence[str], options: Mapping[str, Any]) -> CommandLine | None:
    """Raises InputError."""
    if not places or len(places) % 2:
        return None
    limits = Limits(**_fields(options, LIMITS))
    guard = Guard(**_fields(options, GUARD))
    forwards = [
        Forward(*pair, **_fields(options, FORWARD), limits=limits, guard=guard)
        for pair in pairs_of(places)
    ]
    refuse_twins(forwards)
    refuse_misfits(forwards)
    return CommandLine(
        forwards,
        limits,
        FLAG in options,
        options.get("--log-format", LogFormat.TEXT),
        options.get("--engine", RelayEngine.AUTO),
    )


def _fields(options: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    return {name[2:].replace("-", "_"): value for name, value in options.items() if name in kinds}


def read_serve(words: Sequence[str]) -> tuple[str, bool] | None:
    """Read the words behind `serve`: the file, "" for none, and whether --docker is among them.

    None: click has to.
    """
    paths: list[str] = []
    docker = False
    rest = iter(words)
    for word in rest:
        if word == "--docker":
            docker = True
        elif word in ("-c", "--config"):
            paths.append(next(rest, ""))
        else:
            return None
    if len(paths) > 1 or any(path.startswith("-") or not path for path in paths):
        return None
    return (paths[0] if paths else "", docker)
