"""The coordinator's half of a run.

Its steps are enrolment, first sums, rounds and comparison.

A person starts `run`, `repeats` conducts it once a seed, and `server` is one run. It calls the steps in `enrolment`
(with the first sums), `rounds` (with their checkpoints) and `comparison`. All of them take a `RunSetting`, which sends
requests to all sites and waits. `row_sums` are sums over the sites' rows, `secure_sums` has the keys of sums that hide
each site's part, `trees` the beginning of trees, `site_arrays` what stays at sites, `noised_evaluation` the counts of a
run whose ε covers the study.
"""
