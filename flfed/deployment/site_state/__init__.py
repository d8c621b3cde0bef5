"""State that a gate keeps about its site.

It has approvals, the coordinator's terms, the people of used snapshots, runs, and the restart of a lost ledger.
"""
