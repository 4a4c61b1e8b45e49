"""TCP: a flow from its client to its target, and the pump between them."""
