"""A site's earlier releases: sets of rows, the sums over them, and their cost in privacy."""
