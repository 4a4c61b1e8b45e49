"""For mkdocs: links to files outside docs/ are names of files on the site."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep the words of such a link."""
    return _OUTSIDE.sub(r"\1", markdown)
