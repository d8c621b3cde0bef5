"""State that a gate keeps about its site.

It has approvals, receipts, the coordinator's terms, the people of used snapshots, and the traces of a lost ledger.
"""
