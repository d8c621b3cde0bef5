"""The coordinator's half of a run.

Its steps are enrolment, summaries, rounds and comparison.

`run` is what a person starts, `repeats` conducts it once a seed, `server` is one run from enrolment to rounds,
`checkpoint_writer` writes its rounds, `comparison` judges its model, `fan_out` asks all sites and waits.
"""
