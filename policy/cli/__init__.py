"""The command train-policy."""
