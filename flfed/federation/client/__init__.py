"""A site's half of a run.

It answers the coordinator's questions, and accounts for what they cost in privacy.

`client` has a handler for each kind of question; `redaction` rounds figures and takes the text out of errors;
`protection` and `privacy_budget` charge the account before anything is computed; `released/` remembers what earlier
runs were told.
"""
