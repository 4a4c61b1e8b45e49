"""Linux network namespaces: find and enter one, put rules and routes there, remove them."""
