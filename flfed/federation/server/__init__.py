"""The coordinator's half of a run.

Its steps are enrolment, first sums, rounds and comparison.

`run` is what a person starts, `repeats` conducts it once a seed, and `server` is one run: it calls the steps in
`enrolment` (with the first sums), `rounds` and `comparison`, and `checkpoint_writer` writes the rounds. All of them
take a `RunSetting`, which asks all sites and waits. What a feature of the study does at these steps is a file in
`parts`, of which `server_parts` has the list. `row_sums` are sums over the sites' rows, `secure_sums` has the keys of
those of which no site's part is seen. `run_kinds` has the run without a model.
"""
