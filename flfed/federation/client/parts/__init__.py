"""Parts of a study at a site.

Each file has a feature's work on a request that comes and on the reply that leaves.
"""
