"""Rehearsal of a consortium on one machine: real processes, all tables here.

Read `preparation.py`, then `consortium.py` and `serving.py`.
"""
