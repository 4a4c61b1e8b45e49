"""`v6fwd demo`: shows what v6fwd does, with nothing but this package.

`show` runs the demo. `target` is a small HTTP server with an access log, `client` sends the
request, `lab` builds the network of namespaces that both run in if permissions allow.
"""
