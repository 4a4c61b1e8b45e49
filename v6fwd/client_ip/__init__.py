"""How a target learns the client's address. Pure: bytes in, bytes out; no sockets, no logging.

- `proxy/`: PROXY headers. `write` makes the one for the target, `read` parses the one of a
  trusted client, `tlvs` passes its TLVs on.
- `http/`: requests are rewritten with the client's address, answers are followed.
- `first_answer`: whether a target took what it got, by its answer.
- `trust`: which clients may send either. `destination`, `presentable`, `pseudo_ipv4`: decisions
  of mode transparent.
"""
