"""UDP: a session for each client, and datagrams moved in batches."""
