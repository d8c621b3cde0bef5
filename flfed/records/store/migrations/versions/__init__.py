"""Steps of the run store's migrations.

A file is named `mNNNN_what.py`; the revision is the part before the first underscore.
"""
