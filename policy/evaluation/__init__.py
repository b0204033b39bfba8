"""Predictions of trained methods, what they cost, and how good they are."""
