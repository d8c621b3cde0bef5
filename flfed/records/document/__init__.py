"""Document of a run: one HTML file that a reader keeps, prints and hands on.

Read `document.py` first (what the run found, and what the model does on test rows), then `content.py` (what is read of
the store), `evidence.py` (what the figures rest on), `sections.py` (the app's sections and charts, as pictures) and
`markup.py` (every text is escaped there).
"""
