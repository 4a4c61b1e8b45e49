"""v6fwd takes docker-proxy's place: the client's real IPv6 address reaches an IPv4-only container.

A flow walks one way through the rooms, and imports point the same way (tests/unit/test_house.py):

    cli/        click commands, one file each: parse, call, print
    daemon/     serve: a supervisor with the listening sockets, workers, control socket, metrics
    demo/       the main job shown with nothing but this package; the lab network of namespaces
    docker/     the shim that dockerd starts, daemon.json, labels, nftables
    config/     v6fwd.toml: files, tables, keys, and every mistake in them at once
    relay/      sockets and time, no policy: engine (nested epoll), listener, tcp, udp, service
    syslog.py   the log as datagrams to the host's syslog daemon, where nobody reads stderr
    client_ip/  pure: addresses and bytes in, bytes out; PROXY headers, trust, ways, pseudo IPv4
    log.py      one line an event to stderr, text or JSON, bounded in rate, never blocking
    model/      Address, Endpoint, Forward, ClientIP, Limits: the nouns and what users type
"""

__version__ = "0.1.0"
