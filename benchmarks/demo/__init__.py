"""The demo: a small labelled collection of real videos, and the whole way from them to the paper's table."""
