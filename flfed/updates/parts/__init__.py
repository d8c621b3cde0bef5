"""Parts of a study, a file a feature: what it does not go with, what its messages may hold, and what leaves a site."""
