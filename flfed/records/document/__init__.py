"""Document of a run: one HTML file that a reader keeps, prints and hands on.

Read `document.py` first, then `content.py` (what is read of the store), `results.py` and `evidence.py` (the sections),
`charts.py` (pictures) and `markup.py` (every text is escaped there).
"""
