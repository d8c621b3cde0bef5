"""Operator's actions at a site.

A person joins, looks, approves and replays.
"""
