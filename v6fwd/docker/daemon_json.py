"""Sets and removes one key of dockerd's configuration, and leaves all other bytes as they are.

Pure: bytes in, bytes out. Order, indentation and line ends are the administrator's. A file that
dockerd itself would not read is refused, so that v6fwd is not blamed for an older mistake.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from v6fwd.model import InputError

KEY = "userland-proxy-path"
_BLANKS_RE = re.compile(r"[ \t\r\n]*")  # RFC 8259, section 2
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of the outermost object: offsets of key and value in the text."""

    name: str
    start: int
    colon: str  # what stands between key and value
    value_start: int
    end: int
    value: Any


@dataclass(frozen=True, slots=True)
class _Object:
    text: str
    start: int  # behind the brace
    end: int  # of the last member, or of the blanks where there is none
    members: tuple[_Member, ...]

    def find(self, name: str) -> _Member | None:
        return next((member for member in self.members if member.name == name), None)


def value_of(data: bytes, key: str = KEY) -> Any:
    """Return the key's value; None without it. Raises InputError."""
    if not data.strip():
        return None
    member = _parse(data).find(key)
    return member.value if member else None


def installed(data: bytes, path: str) -> bytes:
    """Return the file with the key set to `path`. Raises InputError."""
    value = json.dumps(path)
    if not data.strip():  # dockerd takes an empty file for {}
        return f'{{\n{_INDENT}"{KEY}": {value}\n}}\n'.encode()
    found = _parse(data)
    member = found.find(KEY)
    if member:
        return _spliced(found, member.value_start, member.end, value)
    if not found.members:
        return _first_member(found, value)
    last = found.members[-1]
    blanks = _before(found, last) or (" " if len(found.members) == 1 else "")
    return _spliced(found, last.end, last.end, f',{blanks}"{KEY}"{last.colon}{value}')


def uninstalled(data: bytes, before: bytes = b"") -> bytes:
    """Return the file as it was; `before` is its content before `installed`. Raises InputError.

    Where somebody has edited the file since, only the key is restored.
    """
    value = value_of(data)
    if value is None:
        return data
    if installed(before, value) == data:
        return before
    old = value_of(before)
    return _without(data) if old is None else installed(data, old)


def _without(data: bytes) -> bytes:
    found = _parse(data)
    names = [member.name for member in found.members]
    at = names.index(KEY)
    member = found.members[at]
    if len(names) == 1:
        blanks = _before(found, member)
        return _spliced(found, found.start, _closing(found), blanks.removesuffix(_INDENT))
    if at + 1 == len(names):
        return _spliced(found, found.members[at - 1].end, member.end, "")
    return _spliced(found, member.start, found.members[at + 1].start, "")


def _first_member(found: _Object, value: str) -> bytes:
    """Into `{}`, on a line of its own if the braces stand on two."""
    blanks = found.text[found.start : found.end]
    indent = _INDENT if blanks.endswith("\n") else ""
    newline = ("\r\n" if "\r\n" in blanks else "\n") if indent else ""
    return _spliced(found, found.end, found.end, f'{indent}"{KEY}": {value}{newline}')


def _spliced(found: _Object, start: int, end: int, text: str) -> bytes:
    return (found.text[:start] + text + found.text[end:]).encode()


def _before(found: _Object, member: _Member) -> str:
    """The blanks in front of a member."""
    text = found.text[: member.start]
    return text[len(text.rstrip(" \t\r\n")) :]


def _closing(found: _Object) -> int:
    """Where the brace stands."""
    return _blanks(found.text, found.end)


# ---- reading -------------------------------------------------------------------------------


def _parse(data: bytes) -> _Object:
    if data.startswith(b"\xef\xbb\xbf"):
        raise InputError("it starts with a byte order mark, which dockerd does not take")
    try:
        text = data.decode()
        found = _read_object(text)
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"it is not JSON: {error.msg}, {where}") from None
    except RecursionError:
        raise InputError("it is nested too deeply") from None
    names = [member.name for member in found.members]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise InputError(f"it has {', '.join(map(repr, twins))} twice")
    return found


def _read_object(text: str) -> _Object:
    start = _expect(text, _blanks(text, 0), "{")
    members: list[_Member] = []
    at = _blanks(text, start)
    if text[at : at + 1] != "}":
        while True:
            members.append(_read_member(text, at))
            at = _blanks(text, members[-1].end)
            if text[at : at + 1] == "}":
                break
            at = _blanks(text, _expect(text, at, ","))
    if _blanks(text, at + 1) < len(text):
        raise json.JSONDecodeError("Extra data", text, _blanks(text, at + 1))
    return _Object(text, start, members[-1].end if members else at, tuple(members))


def _read_member(text: str, at: int) -> _Member:
    _expect(text, at, '"')
    name, end = _DECODER.raw_decode(text, at)
    value_start = _blanks(text, _expect(text, _blanks(text, end), ":"))
    value, value_end = _DECODER.raw_decode(text, value_start)
    return _Member(name, at, text[end:value_start], value_start, value_end, value)


def _blanks(text: str, at: int) -> int:
    """Where the blanks that begin here end."""
    match = _BLANKS_RE.match(text, at)
    return match.end() if match else at


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError(f"Expecting {sign!r}", text, at)
    return at + 1


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"it is not JSON: {name} is no number there")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
