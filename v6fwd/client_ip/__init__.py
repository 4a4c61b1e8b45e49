"""Pure: addresses and bytes in, bytes out. No sockets, no clock, no logging.

`proxy_write` makes the PROXY header that a target reads, `proxy_read` parses the one that a
trusted client sends, `trust` says which clients are trusted to send one.

HTTP/1: `http_requests` writes the heads of a client's requests anew, each with its address
(`http_address`), and `http_responses` follows what the target answers. Below them stand
`http_line`, `http_fields` and `http_chunks`, which read the parts of a message, `http_memo`,
which remembers the last fields, `http_second`, which has llhttp read a head again, and
`http_syntax`. `http_refusal` makes the answer to what is not let through.
"""
