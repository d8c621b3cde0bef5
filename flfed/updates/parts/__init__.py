"""Parts of a study, a file a feature: what it does not go with, in one place."""
