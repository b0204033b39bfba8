"""Stage 2: small networks that decide which backbone is worth running, trained from a feature cache."""
