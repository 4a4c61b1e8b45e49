"""What bounds flows: shares of ports, time limits, dead peers."""
