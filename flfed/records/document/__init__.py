"""Document of a run: one HTML file to keep, print and send.

Read `document.py` first (findings of the run, and figures on test rows), then `content.py` (content from the store),
`evidence.py` (sites, data, privacy and hashes) and `sections.py` (the app's sections and charts, as pictures, in HTML
in which every text is escaped).
"""
