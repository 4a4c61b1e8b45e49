"""HTTP on top of TCP: requests pass one by one, each with the address of its client."""
