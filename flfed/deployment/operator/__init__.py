"""Operator's actions at a site.

A person joins, looks, approves, replays, and restarts a ledger.
"""
