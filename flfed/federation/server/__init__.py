"""The coordinator's half of a run.

Its steps are enrolment, summaries, rounds and comparison.

`run` is what a person starts, `repeats` conducts it once a seed, `server` is one run from enrolment to comparison,
`fan_out` asks all sites and waits.
"""
