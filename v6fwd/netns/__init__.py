"""Linux network namespaces: find one, enter it, put rules there, take them back."""
