"""The listing of published splits: one file, one rule that says which rows of a site are tested on."""
