"""Programs that run inside a namespace, each by its path; they import nothing of bench."""
