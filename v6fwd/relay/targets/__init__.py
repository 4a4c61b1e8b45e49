"""Where forwards lead: addresses, the resolver, and what all flows need of a target."""
