"""For tests that read files of the checkout: where it is."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
