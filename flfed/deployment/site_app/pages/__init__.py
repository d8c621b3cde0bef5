"""Pages for a site's own people."""
