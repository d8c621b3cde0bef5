"""The steps, named `mNNNN_what.py`; the revision is the part before the first underscore."""
