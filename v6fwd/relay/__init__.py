"""Sockets and time, no policy. A flow walks accept -> client_ip -> connect -> pump -> record.

`reactor` owns the nested epoll, `listener` accepts, `header` waits for a PROXY header, `target`
resolves, `dial` is a flow until it has one, `tcp` the flow to its end and record, `tcp_forward`
begins it, `http` and `http_forward` are the same for HTTP, `side` (`http_side`) is one end and
the pump, `pipes` lends splice pipes, `sockets` holds what is done to descriptors, `deadlines`
the time limits, `flows` the set of them all. `service` is the relay as a whole: `ports` that
open, change and close, `resources` and `budget` for what they share, `counters` for what they do;
`foreground` is its life in `v6fwd forward`.
`guard` stands at the door and asks `clients`, the table that all workers share.
For UDP, `udp` is a listener, `udp_sorter` tells its clients apart, `udp_session` is one of them,
`udp_sessions` the table of them all; `mmsg`, `trains`, `pktinfo` and `replies` move datagrams in
batches, `pending` keeps new clients.
For mode transparent, `transparent` is the target, `inside` a namespace or `across` the network,
which `seeing` decides; `claims` makes sockets with a client's address, `netns_search` finds
a namespace by an address in it, `netns_watch` hears of new ones, `netns` enters one, `netns_rules`
and `netlink` put rules there, `netns_lease` counts who needs them, `namespaces` holds all that
a process uses, `pseudo_store` remembers pseudo addresses.
"""
