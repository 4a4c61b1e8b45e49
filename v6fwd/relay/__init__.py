"""Sockets and time, no policy. A flow walks accept -> client_ip -> connect -> pump -> record.

`engine` owns the nested epoll, `listener` accepts, `tcp` is a flow from its first byte to its
record, `target` resolves and dials, `pipes` lends splice pipes, `sockets` holds what is done to
descriptors, `deadlines` the time limits, `service` ties them to the event loop.
"""
