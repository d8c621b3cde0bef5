"""A site's half of a run.

It replies to the coordinator's requests, and accounts for their cost in privacy.

`client` has a handler for each kind of request, `training` the round and `training_step` what a study adds to it.
`masked` is the site's half of secure sums; `verified_model` and `verified_steps` make encoder, model, trees and
numbers of a run's totals. `outbound_figures` rounds figures, `redaction` removes texts of errors. `protection` and
`account` charge a run before anything is computed. `journal` answers each step of a run once. `released/` has answers
with noise.
"""
