"""The papers' tables and figures: one experiment per row, the papers' own values, running and rendering.

A table is a folder of TOML files in experiments/, a file for each row, or one of the user's own: `reading` checks
them and reads them into what `experiment` describes. `running` trains what is missing, `views` asks trained runs
for more, `uncertainty` adds intervals, `report` sums up; `terminal`, `text`, `latex` and `figure` render.
`catalogue` names all tables and figures, also those that are not built yet.
"""
