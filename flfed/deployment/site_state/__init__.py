"""State that a gate keeps about its site.

It has approvals, the coordinator's terms, and the restart of a lost ledger.
"""
