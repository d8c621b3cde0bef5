"""Training and scoring at a site.

Pure functions of model, arrays, encoded rows, plan and seed.

`requests` says what may be asked, and `answer` answers it: each fit by itself (`fit`), or many sites as one stack. Of
that read `stack` first (weights of all sites in one array, gradients by hand), then `batches` (which rows of each site
come when). `private_fit` is the same loop with clipping and noise a row.

The best model of one site's rows alone is what joining is compared with: `tuned_linear` and `tuned_stacked` choose a
penalty by cross-validation, `best_model` prefers boosted trees where they are better.
"""
