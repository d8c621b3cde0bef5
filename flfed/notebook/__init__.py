"""flfed from Python: data frames in, a result with tables and charts out.

Read `federate.py` first: its calls import what they need. `frames.py` makes dataset, sites and study of data frames,
and `result.py` is the result of a run.
"""
