"""A site's earlier releases: their cost in privacy, and answers that are kept."""
