"""Steps of the run store's migrations: the tables, and each change to them since.

A file is named `mNNNN_what.py`; the revision is the part before the first underscore.
"""
