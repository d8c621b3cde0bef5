"""Rehearsal of a consortium on one machine: real processes, all tables here.

Read `consortium.py`, then `serving.py`.
"""
