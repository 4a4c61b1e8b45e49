"""Errors that the environment causes; their text is one line for the operator."""

from __future__ import annotations

import os


class RelayError(Exception):
    """The relay cannot do what its configuration asks for."""


class AddressInUseError(RelayError):
    """Somebody else listens at `listen`, a text as users write it."""

    def __init__(self, text: str, listen: str) -> None:
        super().__init__(text)
        self.listen = listen


class NotPermittedError(RelayError):
    """The process lacks a capability; the text names it."""


class ClientRefusedError(Exception):
    """A client cannot be served in the mode of its forward; the text says why."""


class LoopError(Exception):
    """A flow is part of a loop; the text says of which."""


def reason(error: OSError) -> str:
    """The text of the error, starting in lower case, for use after a colon."""
    number = error.errno or 0  # getaddrinfo(3) uses negative numbers of its own
    text = os.strerror(number) if number > 0 else error.strerror or str(error)
    return text[:1].lower() + text[1:]
