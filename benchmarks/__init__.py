"""Timing scripts: `make bench`, `make bench-peers`."""
