"""paper-tables costs: every cost that the two papers print, computed again where that needs no training.

`printed.py` holds the papers' figures, `quantity.py` the arithmetic, `figure.py` the verdicts,
`wording.py` and `showing.py` the report.
"""
