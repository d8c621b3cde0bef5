"""The pages that a site shows its own people."""
