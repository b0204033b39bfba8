"""Drawings of tables and figures: plain numbers in, PNG out. They know neither runs nor files."""
