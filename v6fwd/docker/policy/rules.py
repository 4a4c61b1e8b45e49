"""Who decides on a port's mode: rules of the file, then labels. Pure.

A rule goes before labels: the file is the administrator's, the labels may come with somebody
else's compose file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from v6fwd.config.rules import Published, Rule
from v6fwd.docker.policy.labels import read_labels, refuse_misfit
from v6fwd.model import ClientIP, InputError

_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Choice:
    """A port's mode, where it comes from in a few words, and lines on what was wrong."""

    client_ip: ClientIP
    source: str
    errors: tuple[str, ...] = ()

    @property
    def is_default(self) -> bool:
        """Whether nobody has asked for it."""
        return self.source == _DEFAULT


def choose(
    port: Published, rules: Sequence[Rule] = (), default: ClientIP = ClientIP.NONE
) -> Choice:
    """The mode of a port: by the first rule that fits, else by its labels, else the default."""
    read = read_labels(port.labels)
    label = read.find(port.container_port, port.protocol)
    wanted = [
        (rule.client_ip, f"rule {number}")
        for number, rule in enumerate(rules, start=1)
        if rule.fits(port)
    ]
    if label is not None:
        wanted.append((label.client_ip, f"label {label.key}"))
    if not wanted:
        return Choice(default, _DEFAULT, read.errors)
    client_ip, source = wanted[0]
    try:
        refuse_misfit(client_ip, port.protocol)
    except InputError as error:
        return Choice(default, _DEFAULT, (*read.errors, f"{source}: {error}"))
    return Choice(client_ip, source, read.errors)
