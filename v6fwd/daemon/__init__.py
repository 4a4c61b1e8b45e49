"""`serve`: a supervisor that holds the listening sockets, and workers that serve flows.

`supervisor` opens, changes and closes forwards; `listen_sockets` holds their sockets; `diff`
compares two lists of forwards; `pool` forks workers and replaces those that die, and `backoff`
spaces the restarts. `worker` is such a process; `channel` joins it to the supervisor, `messages`
go over it, `scoreboard` is the little memory that all share. `control` answers `v6fwd status` and
its sisters on a unix socket, `ask` asks there, `takeover` hands listening sockets from one daemon
to the next. `serve` is the life of the whole; `systemd` and `privileges` are where it lives,
`metrics` and `web` what it shows.
"""
