"""Moves bytes between clients and targets. Sockets and time, no policy.

A flow walks accept -> client_ip -> connect -> pump -> record. What all protocols share is here:

    reactor     watches descriptors: one epoll, nested in the event loop
    pump        the contract between a stream's flow and whoever moves its bytes
    listener    accepts clients, and waits when there is no room for more
    admission   lets a client in or not, by `clients`, the table that all workers share
    targets/    what a target is, its addresses, the resolver; those of all forwards; which of
                them seem to expect another mode
    sockets     what is done to descriptors; `udp_sockets` for datagrams
    flows       the set of live flows; `idle` resets those that move nothing
    event_loop  asyncio and uvloop, imported without ssl
    deadlines   time limits; `counters` and `ends`: what flows did and how they ended
    resources   what forwards share, within the `budget` of descriptors
    ports       a forward at work; `relay`: all of them; `foreground`: the life of `v6fwd forward`

Each protocol has a folder: `tcp`, `http` on top of it, and `udp`. In `transparent` are the targets
that see the client's own address at their socket. In `limits` is what bounds flows besides, in
`life` how a relay begins and ends, also without asyncio. `pairs` and `ring` are native pumps of
plain TCP flows, over epoll and io_uring.
"""
