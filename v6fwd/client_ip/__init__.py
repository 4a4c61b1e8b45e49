"""Pure: addresses and bytes in, bytes out. No sockets, no clock, no logging.

`proxy_write` makes the PROXY header that a target reads, `proxy_read` parses the one that a
trusted client sends, `trust` says which clients are trusted to send one.
"""
