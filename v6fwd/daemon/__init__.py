"""`serve`: a supervisor that holds the listening sockets, and workers that serve flows.

life         serve, systemd (notifications, passed sockets), takeover (to a successor)
supervisor   supervisor opens, changes and closes forwards; listen_sockets holds their sockets;
             diff compares two lists of forwards
workers      pool forks them and replaces those that die or hang, spaced by backoff; handle is
             one of them; process forks; worker is what runs there; scoreboard is shared memory
messages     channel carries messages, which are made of plain data
privileges   privileges drops them, seccomp (syscalls) filters calls. A worker's helper has
             those of mode transparent (helper, helper_handle, helper_ops, wire); permits says
             what it may be asked; sockets_ahead and socket_filter make that cheap and safe
questions    control reads requests at a unix_listener in control_folder, requests answers them;
             ask asks there, peer is who asks; web serves the pages of metrics; view/ is the
             status page
bans         bans changes them, ban_journal keeps them over a restart, following has a predecessor
             that drains obey, too; see relay/limits/bans.py
"""

import v6fwd.relay.event_loop  # noqa: F401 - before anything imports asyncio
