"""Timing scripts: `make bench`, `make bench-deployment`, `make bench-tables`."""
