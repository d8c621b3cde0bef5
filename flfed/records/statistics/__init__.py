"""Statistics over sites from what they released: intervals, tests, verdicts."""
