"""Reports on runs, as figures and as sentences."""
