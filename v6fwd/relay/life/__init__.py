"""How a relay begins and ends in a process; `alone` is the whole life of one without asyncio."""
