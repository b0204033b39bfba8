"""The papers' tables and figures: one experiment per row, the papers' own values, running and rendering.

A table is a module that lists its experiments (`liteeval1`); `running` trains what is missing, `report` sums
up, `terminal`, `text` and `figure` render. `catalogue` names all of them, also those that are not built yet.
"""
