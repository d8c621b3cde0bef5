"""Run store, reports and pages of recorded runs.

Nothing here sees rows or arrays.
"""
