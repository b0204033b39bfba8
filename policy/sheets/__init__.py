"""The one renderer: a `Sheet` or a whole `Document` for terminals, as Markdown, LaTeX, CSV, JSON and HTML.

It knows neither runs nor papers: what a table says is made elsewhere, how it looks is decided here.
"""
