"""Docker's Engine: which containers run, and whose a process is."""
