"""Mode transparent: the target sees its client's address at the socket."""
