"""What can go wrong in the world outside, as one line for the operator."""

from __future__ import annotations

import os


class RelayError(Exception):
    """The relay cannot do what it was told; the text is one line for the operator."""


class NotPermittedError(RelayError):
    """The process lacks a capability, which the text names."""


class ClientRefusedError(Exception):
    """A client cannot be served as its forward's mode demands; the text says why."""


def reason(error: OSError) -> str:
    """The error's text in lower case, as it stands behind a colon."""
    number = error.errno or 0  # getaddrinfo(3) has negative ones of its own
    text = os.strerror(number) if number > 0 else error.strerror or str(error)
    return text[:1].lower() + text[1:]
