"""paper-tables costs: every cost that the two papers print, computed again where that needs no training.

`printed.py` holds the papers' figures, `components.py` what they are sums of, `quantity.py` the arithmetic and the
verdicts, `wording.py` and `showing.py` the report.
"""
