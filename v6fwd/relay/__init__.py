"""Sockets and time, no policy. A flow walks accept -> client_ip -> connect -> pump -> record.

`reactor` owns the nested epoll, `listener` accepts, `header` waits for a PROXY header, `target`
resolves, `dial` is a flow until it has one, `tcp` the flow to its end and record, `tcp_forward`
begins it, `http` and `http_forward` are the same for HTTP, `side` (`http_side`) is one end and
the pump, `pipes` lends splice pipes, `sockets` holds what is done to descriptors, `deadlines`
the time limits, `flows` the set of them all. `service` is the relay as a whole: `ports` that
open, change and close, `resources` and `budget` for what they share, `counters` for what they do;
`foreground` is its life in `v6fwd forward`.
`guard` stands at the door and asks `clients`, the table that all workers share.
`udp/`: `listener` owns the socket, `demux` tells its clients apart, `pending` keeps new ones until
`session_maker` makes a `session` of each, `session_table` holds all of them, `forward` is what
they share; `mmsg`, `gso`, `pktinfo` and `replies` move datagrams in batches.
`transparent/`: `target` decides who is preserved, `in_netns` and `routed` are its two paths, which
`choose` chooses between; `bind` makes sockets with a client's address, `namespaces` holds the
network namespaces in use, `pseudo_store` remembers pseudo addresses.
"""
