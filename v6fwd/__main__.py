"""`python -m v6fwd` is `v6fwd`."""

from v6fwd.cli import main

main(prog_name="v6fwd")
