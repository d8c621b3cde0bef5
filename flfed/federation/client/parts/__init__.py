"""Parts of a study at a site: what each feature does to a request that comes and to the reply that leaves."""
