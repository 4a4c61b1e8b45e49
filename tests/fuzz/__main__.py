"""`python -m tests.fuzz TARGET [OPTIONS OF LIBFUZZER]`: random bytes, guided by coverage.

`make fuzz SECONDS=60` runs all targets for so long each. What is found is left in a crash-*
file; a line in tests/fuzz/corpus makes it a test.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["v6fwd"]):
    from tests.fuzz.corpus import WORDS, seeds
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Start from all samples that there are, with the words of the protocol at hand."""
    target = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder, "words")
        quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS[target])
        words.write_text("".join(f'"{word}"\n' for word in quoted))
        start = Path(folder, "seeds")
        start.mkdir()
        for number, sample in enumerate(seeds(target)):
            start.joinpath(str(number)).write_bytes(sample)
        options = [f"-dict={words}", "-timeout=10", "-max_len=4096", *sys.argv[2:], str(start)]
        atheris.Setup([sys.argv[0], *options], TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
