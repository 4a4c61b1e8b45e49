"""v6fwd takes docker-proxy's place: the client's real IPv6 address reaches an IPv4-only container.

Imports point down this list (tests/unit/test_architecture.py):

    cli/        click commands, one file each: parse, call, print
    doctor/     what on a host keeps IPv6 clients from being served or seen, and the mend
    docker/     the shim that dockerd starts, the controller that serves its port, daemon.json
    daemon/     serve: a supervisor with the listening sockets, workers, control socket, metrics
    demo/       the main job with nothing but this package; the lab network of namespaces
    probe/      asks a server which forms of the PROXY header it accepts
    relay/      sockets and time: what all flows share; tcp/, http/, udp/, transparent/
    netns/      Linux network namespaces: find, enter, put rules there and take them back
    config/     v6fwd.toml: files, tables, keys, and every mistake in them at once
    syslog.py   the log as datagrams to the host's syslog daemon, where nobody reads stderr
    client_ip/  pure: bytes in, bytes out; http/, proxy/, trust, destination, pseudo IPv4
    log.py      one line an event to stderr, text or JSON, bounded in rate, never blocking
    folder.py   folders that a privileged process may trust, and the files in them
    errors.py   what can go wrong in the world outside, as one line for the operator
    model/      Address, Endpoint, Forward, ClientIP, Limits: the nouns and what users type
"""

__version__ = "0.2.0"
