"""Charts in Vega-Lite, the same in the app, the document and a notebook.

Read `chart.py` first (a chart, and how it becomes a picture), then `by_site.py` and `curves.py`.
"""
