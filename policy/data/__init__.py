"""Labelled videos of a cache: how they are opened, and batches of them."""
