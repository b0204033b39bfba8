"""Drawings of tables and figures: plain numbers in, PNG out, with no knowledge of runs or files."""
