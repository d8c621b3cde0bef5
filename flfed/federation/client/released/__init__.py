"""A site's earlier releases.

They are sets of rows, the sums over them, and their cost in privacy.
"""
