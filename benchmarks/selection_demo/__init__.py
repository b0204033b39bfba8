"""`python -m benchmarks.selection_demo`: model selection on the demo's videos, from scores that a user brings."""
