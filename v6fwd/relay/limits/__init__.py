"""What bounds flows: shares of ports, time limits, dead peers, bans, and what an operator ends."""
