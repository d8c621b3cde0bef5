"""Parts of a study at the server of a run.

A file has a feature's work at each step of the run.
"""
