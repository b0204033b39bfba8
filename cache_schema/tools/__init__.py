"""What `feature-cache` does to whole caches: describe, verify, merge, export, drop."""
