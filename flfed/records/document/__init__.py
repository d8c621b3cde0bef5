"""Document of a run: one HTML file that a reader keeps, prints and hands on.

Read `document.py` first (what the run found), then `content.py` (what is read of the store), `scores.py` (what the
model does on test rows), `evidence.py` (what the figures rest on), `charts.py` (the app's charts as pictures) and
`markup.py` (every text is escaped there).
"""
