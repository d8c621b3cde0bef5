"""Statistics over sites from their released aggregates.

They are intervals, tests and verdicts.
"""
