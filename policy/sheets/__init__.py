"""The one renderer: a `Sheet` or a whole `Document` for terminals, as Markdown, LaTeX, CSV, JSON and HTML.

It knows neither runs nor papers: `policy.tables` decides what a table says, this room how it looks.
"""
