"""State that a gate keeps about its site.

It has approvals, receipts, the coordinator's terms, and the traces of a lost ledger.
"""
