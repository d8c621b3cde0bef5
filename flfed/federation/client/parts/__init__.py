"""Parts of a study at a site: each feature's work on a request that comes and on the reply that leaves."""
