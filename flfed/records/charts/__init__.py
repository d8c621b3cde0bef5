"""Charts in Vega-Lite: what the app, the document and a notebook draw alike.

Read `chart.py` first (a chart, and how it becomes a picture), then `by_site.py` and `curves.py`.
"""
