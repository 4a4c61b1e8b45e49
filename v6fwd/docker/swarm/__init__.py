"""Ports that Swarm publishes through its routing mesh: services, and the way to their tasks."""
