"""What v6fwd has to do with Docker.

`v6fwd-docker-proxy` is the shim that dockerd starts, `flags` what dockerd tells it, `hold/hold.c`
what it becomes while a daemon serves its port, which `holder` finds, `proxy` the relay that it
becomes where none runs; `daemon_json` edits Docker's configuration, `ports`
looks in /proc who serves what is published; `labels` and `rules` choose a forward's client-ip
mode; `preparation` lets containers find IPv6 while they start, and `cgroup` tells whose process one
is; `nat` brings the IPv4 clients of a published port to v6fwd. docs/docker.md has the whole.
"""
