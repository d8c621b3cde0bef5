"""flfed from Python: data frames in, a result with tables and charts out.

Read `federate.py` first: it puts together what a study needs. `result.py` is what a run gives back.
"""
