"""The request files of gunicorn and llhttp, as samples with what their makers say of them.

They are data of those projects, fetched by scripts/fetch-corpora; without them there are no
samples. Their oracles speak for a server that answers, not for a relay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent.parent.parent / ".corpora"

_HOST = b"Host: corpus\r\n"
_LINE_RE = re.compile(rb"^[A-Z-]+ [^ \r\n]+ HTTP/1\.1\r\n", re.MULTILINE)
_HEX_RE = re.compile(rb"\\x([0-9A-Fa-f]{2})")
_LLHTTP_RE = re.compile(
    r"^#+ (?P<title>[^\n]+)\n(?:(?!^#)[^\n]*\n)*?<!-- meta=(?P<meta>\{[^\n]*?\}) -->\n"
    r"```http\n(?P<raw>.*?)\n```\n+(?:[^\n`]+\n+)*```log\n(?P<log>.*?)```",
    re.MULTILINE | re.DOTALL,
)


class Sample(NamedTuple):
    """One file, or one fenced block of it."""

    name: str
    raw: bytes
    valid: bool
    whole: int  # of whole requests in it; of a bad one, those before the fault


def gunicorn_samples() -> Iterator[Sample]:
    """Valid and invalid files, but for those that are read with options set."""
    for path in sorted((FOLDER / "tests" / "requests").glob("*valid/*.http")):
        oracle = path.with_suffix(".py").read_text(encoding="utf-8")
        if "cfg.set" in oracle or path.name.startswith("pp_"):
            continue
        valid = path.parent.name == "valid"
        count = max(1, len(re.findall(r'^ *"method":', oracle, re.MULTILINE))) if valid else 0
        raw = path.read_bytes().replace(b"\n", b"")
        yield Sample(f"{path.parent.name}/{path.stem}", _with_host(_unescaped(raw)), valid, count)


def llhttp_samples() -> Iterator[Sample]:
    """The blocks for its strict reading."""
    for path in sorted((FOLDER / "vendor/llhttp/test/request").glob("*.md")):
        if path.stem.startswith(("lenient", "pausing")):
            continue
        text = path.read_text(encoding="utf-8")
        for number, match in enumerate(_LLHTTP_RE.finditer(text), 1):
            if '"type": "request"' not in match["meta"]:
                continue
            raw = match["raw"].encode().replace(b"\\\n", b"").replace(b"\n", b"\r\n")
            log = match["log"]
            valid = "error code=" not in log or "error code=22" in log  # 22: paused for upgrade
            name = f"{path.stem}/{number} {match['title']}"
            yield Sample(name, _with_host(_unescaped(raw)), valid, log.count("message complete"))


def _unescaped(raw: bytes) -> bytes:
    for letters, byte in ((b"\\r", b"\r"), (b"\\n", b"\n"), (b"\\t", b"\t"), (b"\\f", b"\f")):
        raw = raw.replace(letters, byte)
    raw = raw.replace(b"\\0", b"\0")
    return _HEX_RE.sub(lambda match: bytes([int(match[1], 16)]), raw)


def _with_host(raw: bytes) -> bytes:
    """With a Host in every head, where the sample has none: HTTP/1.1 wants one."""
    if re.search(rb"^host *:", raw, re.IGNORECASE | re.MULTILINE):
        return raw
    return _LINE_RE.sub(lambda match: match[0] + _HOST, raw)
