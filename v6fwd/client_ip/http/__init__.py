"""HTTP/1.1 (RFC 9112): requests are parsed strictly and rewritten, answers followed. Pure.

`exchange` decides for a connection; `requests` and `responses` read the two directions. Heads:
`request_line`, `fields`, `framing`, `address` (the client's fields), `request_head`,
`response_head`; `memo` caches the last block of fields, `crosscheck` has llhttp parse it too,
`straighten` rewrites odd answers. Bodies: `chunks`. `refusal` makes answers of our own;
`syntax` and `budget` are shared.
"""
