"""Local baselines by tuning.

They are the best model of one site's rows alone: what joining is compared with.

`linear` and `stacked` choose a penalty by cross-validation, `best_model` prefers boosted trees where they are better.
"""
