"""State that a gate keeps about its site.

It has approvals, receipts, archived requests, and the coordinator's terms.
"""
