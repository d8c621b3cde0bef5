"""The coordinator's half of a run.

Its steps are enrolment, first sums, rounds and comparison.

`run` is what a person starts, `repeats` conducts it once a seed, and `server` is one run: it calls the steps in
`enrolment`, `first_sums`, `rounds` and `comparison`, and `checkpoint_writer` writes the rounds. All of them take a
`RunSetting`, and `fan_out` asks all sites and waits. What a feature of the study does at these steps is a file in
`parts`, of which `server_parts` has the list. `run_kinds` has the run
without a model.
"""
