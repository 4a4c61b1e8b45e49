"""v6fwd in docker-proxy's place: the published ports of a Docker Engine, served by the daemon.

`controller` brings together what is in this package: `intake` finds the shims, `adopted_ports`
serves their ports, `direct_ports` those that have no shim, `ipv4_redirect` (with `nft`) brings
IPv4 clients to the ports that need them all, `prestart` gives starting containers a placeholder
IPv6 address. `install` and `daemon_json` make dockerd start the shim. `shim/` is the process that
dockerd starts, `engine/` the Engine's API, `policy/` decides on client-ip modes. docs/docker.md
explains the whole; `proxy` is an alias for shims of release 0.1.
"""
