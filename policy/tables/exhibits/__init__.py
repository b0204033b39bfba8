"""What is more than a table of runs: figures of the paper, its runtimes, and what goes beyond it."""
