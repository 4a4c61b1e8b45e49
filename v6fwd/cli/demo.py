"""`v6fwd demo`: the main job with nothing but this package."""

from __future__ import annotations

import subprocess
import sys

import click

from v6fwd.demo.show import MODES, DemoError, Shown, find_place, show


@click.command(epilog="Exit status: 0 if the client's address reached the target's log, else 1.")
def demo() -> None:
    """Send an IPv6 request through v6fwd to an IPv4-only target, and show the target's log.

    As root it runs in network namespaces of its own, otherwise on loopback. It needs no other
    software, and removes everything that it created.
    """
    try:
        with find_place() as place:
            click.echo(f"An IPv6 client asks an IPv4-only target, {place.words}. The target's log:")
            shown = [show(place, mode) for mode in MODES]
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        click.echo(f"the demo cannot be shown: {error}", err=True)
        sys.exit(1)
    width = max(len(one.line) for one in shown)
    for one in shown:
        click.echo(f"  {one.line:<{width}}  <- {_word(one)}")
    if not shown[-1].kept:
        click.echo("the client's address did not come through", err=True)
        sys.exit(1)


def _word(one: Shown) -> str:
    verdict = "kept: the client itself" if one.kept else "lost: this is not the client"
    return f"--client-ip {one.mode}: {verdict}"
