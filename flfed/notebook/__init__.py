"""flfed from Python: data frames in, a result with tables and charts out.

Read `federate.py` first: it makes dataset, sites and study of data frames. `result.py` is the result of a run.
"""
