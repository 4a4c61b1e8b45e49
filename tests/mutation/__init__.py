"""What `scripts/mutate` is made of: the mutants, and which tests execute a line."""
