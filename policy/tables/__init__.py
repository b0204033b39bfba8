"""The papers' tables and figures: one experiment per row, run and shown beside the papers' values.

A table is a folder of TOML files in experiments/ or elsewhere, a file for each row. `reading` reads them into the
classes of `experiment`, `requests` checks what the user wants of them, `running` trains what is missing, `views`
evaluates trained runs in other ways, `uncertainty` adds intervals, and `report` sums up. `exhibits` are more than
a table; `documents` and `figure` prepare both for `policy.sheets`. `catalogue` names all tables and figures.
"""
