"""Operator's actions at a site.

A person joins, looks and approves.
"""
