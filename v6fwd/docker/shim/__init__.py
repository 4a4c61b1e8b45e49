"""The process that dockerd starts in place of docker-proxy, and the daemon's side of it.

`v6fwd-docker-proxy` is the script that dockerd starts, `flags` its flags, `hold/hold.c` what it
becomes while a daemon serves its port (`holder` finds the one for this machine), `standalone` the
relay that it becomes otherwise. The daemon meets shims in a folder (`rendezvous`), takes their
descriptors (`process`) and uses their sockets (`listening`). `published` reads from /proc which
program serves each published port.
"""
