"""Which client-ip mode a published port has. Pure."""
