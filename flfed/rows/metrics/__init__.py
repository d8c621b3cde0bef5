"""The metrics: one file each, named as the function of `sklearn.metrics` whose value it equals."""
