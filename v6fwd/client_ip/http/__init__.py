"""HTTP/1.1 as RFC 9112 has it, read strictly and written anew. Pure."""
