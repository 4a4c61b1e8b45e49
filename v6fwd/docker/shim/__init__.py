"""The process that dockerd starts in place of docker-proxy, and our side of it."""
