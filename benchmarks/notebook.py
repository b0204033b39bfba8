"""docs/python.ipynb, written from docs/python.md: its code blocks as cells, its text between them.

python -m benchmarks.notebook
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs/python.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")
_BLOCK = re.compile(r"^```python \w+\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def notebook_of(page: str) -> str:
    """The notebook, without outputs, as JSON."""
    cells = []
    for number, part in enumerate(_BLOCK.split(page)):  # text and code in turn
        if not part.strip():
            continue
        kind = "code" if number % 2 else "markdown"
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if number % 2:
            cell |= {"execution_count": None, "outputs": []}
        cells.append({**cell, "source": part.strip().splitlines(keepends=True)})
    content = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook_of(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
